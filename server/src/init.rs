//! `kontiki init`: lays out a cluster on disk and says what to copy where.
//!
//! A data directory comes into being here and nowhere else, with the genesis configuration as its first record. Nothing
//! that exists is ever overwritten.

use crate::{
    cli::InitArgs,
    config_file::{self, ConfigFile, Sizes},
    failure::{Failure, Stop},
    output::say,
};
use kontiki::{ClusterKey, Code};
use std::{
    fs::{self, OpenOptions},
    io::Write,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

/// HTTP ports stand so far above those ports.
const HTTP_PORT_OFFSET: u16 = 100;

/// Lays out a cluster for `kontiki init`.
pub(crate) fn run(args: &InitArgs) -> Result<(), Stop> {
    let sizes = Sizes {
        segment_bytes: args.segment_bytes,
        ..Sizes::default()
    };
    let layout = Layout::new(&args.dir, args.nodes, args.base_port, sizes)?;
    layout.create()?;
    explain(&layout);
    Ok(())
}

/// The files of a cluster in one directory.
pub(crate) struct Layout {
    dir: PathBuf,
    nodes: u64,
    base_port: u16,
    sizes: Sizes,
}

impl Layout {
    /// `nodes` nodes in `dir`, their ports above `base_port`.
    pub(crate) fn new(dir: &Path, nodes: u64, base_port: u16, sizes: Sizes) -> Result<Self, Failure> {
        let highest = u64::from(base_port) + u64::from(HTTP_PORT_OFFSET) + nodes;
        if highest > u64::from(u16::MAX) {
            let text = format!("--base-port {base_port} leaves no room: the last port would be {highest}");
            return Err(Failure::new(Code::Usage, text).advise("take a base port below 65000"));
        }
        Ok(Self {
            dir: dir.to_owned(),
            nodes,
            base_port,
            sizes,
        })
    }

    /// The node numbers.
    pub(crate) fn ids(&self) -> impl Iterator<Item = u64> + use<> {
        1..=self.nodes
    }

    /// Where the key lies.
    fn key(&self) -> PathBuf {
        self.dir.join("cluster.key")
    }

    /// Where a node's configuration lies.
    pub(crate) fn config(&self, node: u64) -> PathBuf {
        config_path(&self.dir, node)
    }

    /// Where a node's data lies.
    fn data(&self, node: u64) -> PathBuf {
        self.dir.join(format!("n{node}"))
    }

    /// Makes everything or, if that fails, nothing. What is already there is named, and then nothing is made.
    pub(crate) fn create(&self) -> Result<(), Failure> {
        self.refuse_existing()?;
        self.make().inspect_err(|_| self.remove())
    }

    fn make(&self) -> Result<(), Failure> {
        let mut builder = fs::DirBuilder::new();
        let made = builder.recursive(true).mode(0o700).create(&self.dir);
        made.map_err(|error| Failure::io("make the directory", &self.dir, &error))?;
        let key = ClusterKey::generate()?;
        key.save(self.key())?;
        for node in self.ids() {
            write_new(&self.config(node), &self.render(node, &key.cluster().to_string()))?;
            ConfigFile::load(&self.config(node))?.config()?.bootstrap()?;
        }
        Ok(())
    }

    /// Removes what was made; none of it was there before.
    fn remove(&self) {
        for path in self.all() {
            // What was not made yet cannot be removed.
            let _ = fs::remove_file(&path).or_else(|_| fs::remove_dir_all(&path));
        }
        // It goes only if nothing else is in it.
        let _ = fs::remove_dir(&self.dir);
    }

    fn all(&self) -> impl Iterator<Item = PathBuf> {
        let nodes = self.ids().flat_map(|node| [self.config(node), self.data(node)]);
        std::iter::once(self.key()).chain(nodes)
    }

    fn refuse_existing(&self) -> Result<(), Failure> {
        let existing: Vec<String> = self
            .all()
            .filter(|path| path.symlink_metadata().is_ok())
            .map(|path| path.display().to_string())
            .collect();
        if existing.is_empty() {
            return Ok(());
        }
        let text = format!("already there: {}", existing.join(", "));
        Err(Failure::new(Code::Config, text)
            .advise("nothing was changed; choose another --dir, or move these away"))
    }

    fn render(&self, node: u64, cluster: &str) -> String {
        let peers: Vec<_> = self.ids().map(|id| (id, address(self.base_port, id))).collect();
        let http = address(self.base_port + HTTP_PORT_OFFSET, node);
        config_file::render(&config_file::Template {
            node,
            cluster,
            http: &http,
            peers: &peers,
            sizes: self.sizes,
        })
    }
}

/// Where a node's configuration lies in a cluster's directory.
pub(crate) fn config_path(dir: &Path, node: u64) -> PathBuf {
    dir.join(format!("n{node}.toml"))
}

fn address(base_port: u16, node: u64) -> String {
    format!("127.0.0.1:{}", u64::from(base_port) + node)
}

fn write_new(path: &Path, text: &str) -> Result<(), Failure> {
    let file = OpenOptions::new().write(true).create_new(true).open(path);
    let written = file.and_then(|mut file| file.write_all(text.as_bytes()).and_then(|()| file.sync_all()));
    written.map_err(|error| Failure::io("write", path, &error))
}

/// Says what was made, how to run it, and what goes where.
fn explain(layout: &Layout) {
    let dir = layout.dir.display();
    let kontiki = std::env::args_os().next().unwrap_or_else(|| "kontiki".into());
    let kontiki = quoted(&kontiki.to_string_lossy());
    say!(
        "Made a cluster of {} nodes in {dir}. Start them, each in a terminal of its own:\n",
        layout.nodes
    );
    for node in layout.ids() {
        let config = quoted(&layout.config(node).to_string_lossy());
        say!("  {kontiki} serve --config {config}");
    }
    say!("\nThen try:\n");
    say!("  {kontiki} append{} 'hello'", endpoints(layout));
    say!("  {kontiki} read{} ..", endpoints(layout));
    say!("\nTo run them on machines of their own, copy to the machine of node k, into one directory:");
    say!("  cluster.key (secret), nk.toml, and the directory nk/; then delete nk/ here.");
    say!("Set `peers` in every nk.toml to where the nodes are (TCP; host names are allowed).");
}

/// A word as a shell takes it.
fn quoted(word: &str) -> String {
    let plain = |c: char| c.is_alphanumeric() || "_-./:=@%+,".contains(c);
    if !word.is_empty() && word.chars().all(plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', "'\\''"))
}

/// The option that names the endpoints, if they are not the ones taken by default.
fn endpoints(layout: &Layout) -> String {
    if layout.base_port == crate::cli::BASE_PORT {
        return String::new();
    }
    let port = |node| address(layout.base_port + HTTP_PORT_OFFSET, node);
    layout
        .ids()
        .map(|node| format!(" --endpoint http://{}", port(node)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::quoted;

    #[test]
    fn words_are_quoted_where_a_shell_needs_it() {
        assert_eq!(quoted("/tmp/c-1/n1.toml"), "/tmp/c-1/n1.toml");
        assert_eq!(quoted("it's a $HOME"), "'it'\\''s a $HOME'");
        assert_eq!(quoted(""), "''");
    }
}
