//! Starting a node: its log is opened, its thread begins, and a handle or two channels are what remains to the program.

use crate::{
    Channels, Config, Error, Handle, LogEntry, LogOnly, MachineHandle, StateMachine,
    channels::channels,
    entry::check_type,
    local::{LocalNetwork, LocalNode},
    memory::MemoryDisk,
    network::{Network, Wired},
    owner::Node,
    place, random,
    replica::{Door, OwnPlace, Place, Replica},
    shared::{Limits, Shared},
    storage::Storage,
    suspect,
    turns::{Core, panic_text},
    worker::{MakeApplier, Worker},
};
use kontiki_consensus::{Incarnation, NodeId, SuspectMark};
use kontiki_log::{Log, OsDisk, Recovered, Salts, Start};
use kontiki_node::{
    driver::Driver,
    machine::{Applier, Typed},
};
use kontiki_transport::{NodeCredentials, Options, Transport};
use kontiki_wire::{KnownLife, Life, StartId, lives::Lives};
use std::{
    collections::BTreeMap,
    fmt,
    marker::PhantomData,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    rc::Rc,
    sync::{
        Arc,
        mpsc::{self, Sender},
    },
    thread,
};
use tokio::{
    runtime::{self, LocalOptions},
    task::spawn_local,
};

/// A node that is not yet started. `M` says what it does with its log: [`LogOnly`] keeps it, a [`StateMachine`] applies it.
pub struct RaftNode<M> {
    config: Config,
    machine: M,
}

impl<M> fmt::Debug for RaftNode<M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RaftNode").field("config", &self.config).finish()
    }
}

impl<T: LogEntry> RaftNode<LogOnly<T>> {
    /// A node with these settings.
    ///
    /// # Errors
    /// [`Error::Config`] if they are not allowed; [`Error::NotRoundTrip`] if no entry of type `T` could ever be read back.
    pub fn new(config: Config) -> Result<Self, Error> {
        config.check()?;
        T::check_type()?;
        Ok(Self {
            config,
            machine: LogOnly(PhantomData),
        })
    }

    /// Starts it: opens its log and its socket, and gives a handle to use it with.
    ///
    /// # Errors
    /// If the data directory is missing, in use, damaged or of another node or cluster, or the port is taken. The error says
    /// what to do.
    pub fn start(self) -> Result<Handle<T>, Error> {
        start(self.config, None).map(Handle::of)
    }

    /// Starts it behind two channels of the standard library: a thin layer over [`start`](Self::start). Answers come in the
    /// order of the requests. Dropping the sender lets everything that was asked be answered and then stops the node;
    /// dropping the receiver stops it at the next answer.
    ///
    /// # Errors
    /// As [`start`](Self::start).
    pub fn spinup(self) -> Result<Channels<T>, Error> {
        channels(self.start()?)
    }
}

impl<M: StateMachine> RaftNode<M> {
    /// A node with these settings and a state machine, in the state that follows from no command at all, or in the one
    /// that a durable machine has kept.
    ///
    /// # Errors
    /// [`Error::Config`] if the settings are not allowed; [`Error::NotRoundTrip`] if values of one of the machine's four types
    /// could never be decoded.
    pub fn with_machine(config: Config, machine: M) -> Result<Self, Error> {
        config.check()?;
        check_type::<M::Command>()?;
        check_type::<M::Output>()?;
        check_type::<M::Query>()?;
        check_type::<M::Answer>()?;
        Ok(Self { config, machine })
    }

    /// Starts it: opens its log and its socket, and gives a handle to use it with. The machine runs on a thread of its own;
    /// one in memory takes over the newest snapshot and is given the log behind it again, beginning now.
    ///
    /// # Errors
    /// As for a node that only keeps its log; and [`Error::Stopped`] if what the machine has kept cannot be read, or does
    /// not follow from this log.
    pub fn start(self) -> Result<MachineHandle<M>, Error> {
        let machine = self.machine;
        let make = move || Applier::new(Typed(machine));
        start(self.config, Some(Box::new(make))).map(MachineHandle::of)
    }
}

/// Starts a node's thread, and waits until it has opened everything.
fn start(config: Config, machine: Option<MakeApplier>) -> Result<Node, Error> {
    let shared = shared_of(&config);
    let (ready, started) = mpsc::channel();
    let own = shared.clone();
    let thread = thread::Builder::new()
        .name("kontiki-raft".into())
        .spawn(move || run(config, machine, &own, ready));
    let thread = thread.map_err(|error| Error::Io(format!("cannot start a thread: {error}")))?;
    match started.recv() {
        Ok(Ok(())) => Ok(Node::new(shared, thread)),
        Ok(Err(error)) => {
            // It has said all it had to say.
            let _ = thread.join();
            Err(error)
        }
        Err(_) => {
            // It panicked, and gives the reason before it ends.
            let _ = thread.join();
            Err(Error::Stopped(shared.closed().unwrap_or_default()))
        }
    }
}

/// What a node's thread and its handles are to have in common.
pub(crate) fn shared_of(config: &Config) -> Arc<Shared> {
    let limits = Limits {
        entry_bytes_max: config.entry_bytes_max,
        batch_bytes_max: config.batch_bytes_max,
        in_flight_bytes_max: config.in_flight_bytes_max,
        read_bytes_max: config.read_bytes_max,
        request_timeout: config.request_timeout,
        sessions: config.sessions,
        schema: config.schema,
    };
    Arc::new(Shared::new(
        config.node_id(),
        config.cluster_key.cluster(),
        limits,
    ))
}

/// The raft thread from its beginning to its end.
fn run(config: Config, machine: Option<MakeApplier>, shared: &Arc<Shared>, ready: Sender<Result<(), Error>>) {
    let ran = catch_unwind(AssertUnwindSafe(|| live(config, machine, shared, ready)));
    if let Err(panic) = ran {
        let why = format!("the raft thread panicked: {}", panic_text(&*panic));
        tracing::error!(node = %shared.node, why, "stopped");
        shared.close(&why, true);
    }
    shared.set_ended();
}

fn live(
    config: Config,
    machine: Option<MakeApplier>,
    shared: &Arc<Shared>,
    ready: Sender<Result<(), Error>>,
) {
    let mut builder = runtime::Builder::new_current_thread();
    builder.enable_time();
    if config.memory.is_none() {
        // Not without need: a thread that waits for sockets is more expensive to wake.
        builder.enable_io();
    }
    let runtime = match builder.build_local(LocalOptions::default()) {
        Ok(runtime) => runtime,
        Err(error) => return tell(&ready, Err(Error::Io(format!("cannot start a node: {error}")))),
    };
    runtime.block_on(async {
        match config.memory.clone() {
            None => dwell(open_wired(config, machine, shared), shared, ready).await,
            Some(network) => dwell(open_local(config, machine, shared, &network), shared, ready).await,
        }
    });
}

async fn dwell<P: Place + 'static>(
    opened: Result<Rc<Replica<P>>, Error>,
    shared: &Arc<Shared>,
    ready: Sender<Result<(), Error>>,
) {
    let replica = match opened {
        Ok(replica) => replica,
        Err(error) => return tell(&ready, Err(error)),
    };
    tell(&ready, Ok(()));
    drop(ready);
    // A task: what wakes the future that a runtime blocks on does so by a call to the system, even on its own thread.
    let shared = shared.clone();
    let life = spawn_local(async move {
        let end = replica.live().await;
        tracing::info!(node = %shared.node, why = end.why, "stopped");
        replica.leave(&end).await;
    });
    if let Err(error) = life.await
        && let Ok(panic) = error.try_into_panic()
    {
        resume_unwind(panic);
    }
}

fn tell(ready: &Sender<Result<(), Error>>, result: Result<(), Error>) {
    // Whoever started the node waits for this.
    let _ = ready.send(result);
}

/// A node that reaches the others by their sockets.
fn open_wired(
    config: Config,
    machine: Option<MakeApplier>,
    shared: &Arc<Shared>,
) -> Result<Rc<Replica<OwnPlace>>, Error> {
    let replica = Rc::new(Replica::new(shared.clone(), OwnPlace::default()));
    let join = |config: &mut Config, incarnation, life| join_wired(config, &replica, incarnation, life);
    replica.put(open(config, machine, shared, join)?);
    Ok(replica)
}

/// A node in a network of this process.
pub(crate) fn open_local(
    config: Config,
    machine: Option<MakeApplier>,
    shared: &Arc<Shared>,
    network: &Arc<LocalNetwork>,
) -> Result<Rc<Replica<Arc<LocalNode>>>, Error> {
    let node = LocalNode::new(shared.signal.clone());
    let replica = Rc::new(Replica::new(shared.clone(), node.clone()));
    let join = |_: &mut Config, _, _| Ok(network.join(shared.node, &node));
    replica.put(open(config, machine, shared, join)?);
    shared.join(node);
    Ok(replica)
}

/// Opens the log, and joins the network with what it holds.
fn open<N: Network>(
    mut config: Config,
    machine: Option<MakeApplier>,
    shared: &Arc<Shared>,
    join: impl FnOnce(&mut Config, Incarnation, Life) -> Result<N, Error>,
) -> Result<Core<N>, Error> {
    let (log, recovered) = open_log(&config, shared)?;
    let Recovered {
        incarnation,
        lives,
        restored,
        snapshots,
        note,
        segments,
        torn_bytes,
        suspect: damage,
    } = recovered;
    let suspect = restored.hard_state.suspect != SuspectMark::ZERO;
    let suspect = suspect.then(|| suspect::found(shared.node, damage));
    if torn_bytes > 0 && suspect.is_none() {
        tracing::info!(node = %shared.node, torn_bytes, "cut off a last write that was never acknowledged");
    }
    if let Some((_, members)) = restored.configurations.last() {
        check_addresses(&config, &members.members())?;
    }
    let seed = random::number()?;
    let life = lives.life;
    let (settings, now) = (config.driver(incarnation, lives), shared.now());
    let (mut driver, worker) = match machine {
        None => (Driver::new(settings, restored, seed, now), None),
        Some(make) => {
            let applier = make().map_err(|error| Error::Stopped(error.to_string()))?;
            let driver = Driver::with_machine(settings, restored, applier.meta(), seed, now);
            if let Some(why) = driver.stopped() {
                return Err(Error::Stopped(why.to_owned()));
            }
            (driver, Some(Worker::start(applier, shared.signal.clone())?))
        }
    };
    driver.restore(now, snapshots, note, segments);
    if let Some(why) = driver.stopped() {
        return Err(Error::Stopped(why.to_owned()));
    }
    let network = join(&mut config, incarnation, life)?;
    let identity = config.identity(incarnation);
    let limits = config.session_limits();
    let identity = (identity, life.start);
    let mut core = Core::new(shared.clone(), identity, driver, log, worker, network, limits);
    if let Some(why) = suspect {
        core.begin_suspect(why);
    }
    Ok(core)
}

fn open_log(config: &Config, shared: &Arc<Shared>) -> Result<(Log<Storage>, Recovered), Error> {
    let mut start = Start {
        id: StartId(random::number()?),
        place: None,
        moved: config.moved,
    };
    let storage = if config.memory.is_some() {
        let disk = MemoryDisk::new(config.data_dir.display().to_string());
        #[cfg(test)]
        if let Some(network) = &config.memory {
            network.equip(config.node_id(), &disk);
        }
        let identity = config.identity(Incarnation(random::number()?));
        let salts = Salts::new(random::number()?);
        kontiki_log::create(
            disk.clone(),
            identity,
            &config.members(),
            config.log_options(),
            salts,
        )?;
        Storage::Memory(disk)
    } else {
        let signal = shared.signal.clone();
        let disk = OsDisk::open(&config.data_dir, move || signal.notify_one())?;
        start.place = Some(place::of(&disk)?);
        Storage::Os(disk)
    };
    let (cluster, node) = (config.cluster_key.cluster(), config.node_id());
    let (log, mut recovered) = Log::start(
        storage,
        cluster,
        node,
        config.log_options(),
        Salts::new(random::number()?),
        &start,
    )?;
    if config.memory.is_some() {
        know_all(&mut recovered.lives, config);
    }
    Ok((log, recovered))
}

/// In memory nothing outlasts a node, and nothing is promised beyond its life: all are taken for who they say they are.
fn know_all(lives: &mut Lives, config: &Config) {
    let only = |node: NodeId| StartId(node.0);
    lives.life.start = only(config.node_id());
    let known = |node: NodeId| KnownLife {
        incarnation: Incarnation::default(),
        number: 1,
        start: only(node),
    };
    let members = config.members().members();
    lives.peers = members.into_iter().map(|node| (node, known(node))).collect();
}

/// Every member the log names must have an address.
fn check_addresses(config: &Config, members: &[NodeId]) -> Result<(), Error> {
    match members.iter().find(|id| !config.peers.contains_key(&id.0)) {
        None => Ok(()),
        Some(id) => {
            let allowed = format!("the addresses of all nodes; the log says that node {id} is one of them");
            Err(Error::config("peers", format!("{:?}", config.peers), allowed))
        }
    }
}

fn join_wired(
    config: &mut Config,
    replica: &Rc<Replica<OwnPlace>>,
    incarnation: Incarnation,
    life: Life,
) -> Result<Wired, Error> {
    let socket = config.bind()?;
    let (cluster, node) = (config.cluster_key.cluster(), config.node_id());
    let credentials = NodeCredentials::derive(cluster, node, config.cluster_key.seed())
        .map_err(|error| Error::Io(error.to_string()))?;
    let peers: BTreeMap<NodeId, String> = config
        .peers
        .iter()
        .map(|(id, address)| (NodeId(*id), address.clone()))
        .collect();
    let options = Options {
        identity: config.identity(incarnation),
        life,
        credentials,
        peers,
        seed: random::number()?,
        limits: config.limits(),
    };
    let inbox = Rc::default();
    let door = Rc::new(Door::new(replica, Rc::clone(&inbox)));
    let transport = Transport::start(options, socket, door)?;
    Ok(Wired { transport, inbox })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{BlockingHandle, Code, Role, memory::Broken};

    /// What becomes of an append to a node whose disk breaks after so many, and why the node stopped.
    fn broken(how: Broken, sound: u32) -> (Error, String, BlockingHandle<String>) {
        let config = Config::in_memory(1).unwrap().remove(0);
        let network = config.memory.clone().unwrap();
        let node = RaftNode::<LogOnly<String>>::new(config)
            .unwrap()
            .start()
            .unwrap()
            .blocking();
        for _ in 0..sound {
            node.append("sound".to_owned()).unwrap();
        }
        network.disks.lock().unwrap()[&NodeId(1)].break_it(how);
        let error = node.append("lost".to_owned()).unwrap_err();
        (error, node.stopped(), node)
    }

    #[test]
    fn a_panic_while_starting_is_an_error_with_its_text() {
        let config = Config::in_memory(1).unwrap().remove(0);
        *config.memory.as_ref().unwrap().broken.lock().unwrap() = Broken::Panics;
        let error = RaftNode::<LogOnly<String>>::new(config)
            .unwrap()
            .start()
            .unwrap_err();
        assert!(error.to_string().contains("a test wants a panic"), "{error}");
    }

    #[test]
    fn the_status_is_what_the_log_holds_before_the_first_turn() {
        let config = Config::in_memory(3).unwrap().remove(0);
        let (shared, network) = (shared_of(&config), config.memory.clone().unwrap());
        let replica = open_local(config, None, &shared, &network).unwrap();
        let status = shared.status().status(shared.node, shared.cluster);
        assert_eq!((status.voters, status.raft_index), (vec![1, 2, 3], 1));
        drop(replica);
    }

    /// After one append the next is the raft thread's, after several the caller's.
    const SOUND: [u32; 2] = [1, 5];

    #[test]
    fn a_failed_write_stops_the_node_and_not_the_program() {
        for sound in SOUND {
            let (error, why, node) = broken(Broken::Fails, sound);
            assert!(
                matches!(error.code(), Code::UnknownOutcome | Code::Stopped),
                "{error}"
            );
            assert!(why.contains("write"), "{why}");
            let status = node.status();
            assert_eq!((status.role, status.stopped.as_ref()), (Role::Fatal, Some(&why)));
            assert_eq!(
                node.append("more".to_owned()).unwrap_err(),
                Error::Stopped(why.clone())
            );
            node.shutdown().unwrap();
            assert_eq!(node.stopped(), why, "the first reason stays");
        }
    }

    #[test]
    fn a_panic_stops_the_node_and_not_the_program() {
        for sound in SOUND {
            let (error, why, node) = broken(Broken::Panics, sound);
            assert!(
                matches!(error.code(), Code::UnknownOutcome | Code::Stopped),
                "{error}"
            );
            assert!(why.contains("a test wants a panic"), "{why}");
            node.shutdown().unwrap();
        }
    }
}
