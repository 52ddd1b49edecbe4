//! A bank on three nodes in one program: the state machine is some twenty lines, and what is paid in through one node is
//! seen through another.
//!
//! ```text
//! cargo run --example bank
//! ```

use kontiki::{At, Config, Consistency, Error, MachineError, MetaRows, RaftNode, StateMachine};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, io::Read};

#[derive(Default)]
struct Bank(BTreeMap<String, u64>);

#[derive(Serialize, Deserialize)]
enum Command {
    Deposit { to: String, amount: u64 },
    Transfer { from: String, to: String, amount: u64 },
}

impl StateMachine for Bank {
    type Command = Command;
    type Output = Result<(), String>;
    type Query = String;
    type Answer = u64;

    fn apply(&mut self, _: &At, command: Command) -> Self::Output {
        let (to, amount) = match command {
            Command::Deposit { to, amount } => (to, amount),
            Command::Transfer { from, to, amount } => {
                let balance = self.0.entry(from.clone()).or_default();
                let left = balance.checked_sub(amount);
                *balance = left.ok_or_else(|| format!("{from} has only {balance}"))?;
                (to, amount)
            }
        };
        let balance = self.0.entry(to).or_default();
        *balance = balance.saturating_add(amount);
        Ok(())
    }

    fn query(&self, account: String) -> u64 {
        self.0.get(&account).copied().unwrap_or(0)
    }

    fn snapshot(&mut self) -> Result<Option<Box<dyn Read + Send>>, MachineError> {
        kontiki::snapshot_of(&self.0).map(Some)
    }

    fn restore(&mut self, from: &mut dyn Read, _: &MetaRows) -> Result<(), MachineError> {
        self.0 = kontiki::restored(from)?;
        Ok(())
    }
}

fn main() -> Result<(), Error> {
    let dir = std::env::temp_dir().join(format!("kontiki-bank-{}", std::process::id()));
    let start = |config| {
        Ok(RaftNode::with_machine(config, Bank::default())?
            .start()?
            .blocking())
    };
    let nodes: Vec<_> = Config::loopback(3, &dir)?
        .into_iter()
        .map(start)
        .collect::<Result<_, Error>>()?;
    let (anna, bert) = ("Anna".to_owned(), "Bert".to_owned());
    let deposit = Command::Deposit {
        to: anna.clone(),
        amount: 100,
    };
    let done = nodes[0].apply(deposit)?;
    println!("node 1: Anna pays in 100: entry {}", done.index);
    for amount in [30, 90] {
        let (from, to) = (anna.clone(), bert.clone());
        let done = nodes[1].apply(Command::Transfer { from, to, amount })?;
        println!("node 2: Anna sends Bert {amount}: {:?}", done.output);
    }
    let balance = |of: &String| nodes[2].query(of, Consistency::Linearizable);
    let balances = (balance(&anna)?, balance(&bert)?);
    println!("node 3: Anna has {}, Bert has {}", balances.0, balances.1);
    nodes.iter().try_for_each(|node| node.shutdown())?;
    // The data is of no use to anyone; what cannot be removed stays.
    let _ = std::fs::remove_dir_all(dir);
    assert_eq!(balances, (70, 30), "the second transfer is not covered");
    Ok(())
}

#[test]
fn it_runs() {
    main().unwrap();
}
