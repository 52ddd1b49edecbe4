//! A lock service on three nodes, with fencing tokens. A lock is lent for a time; whoever sleeps past it does not know
//! that another has the lock by now. No lock service can prevent that, but each loan has a number that is higher than all
//! before it, and a storage that has seen a higher one refuses the sleeper.
//!
//! Time is the cluster's clock, from the log ([`At::clock_seconds`]): the same on every node, it never goes back, and no node
//! whose date is wrong moves it. `apply` looks at no clock.
//!
//! ```text
//! cargo run --example lock
//! ```

use kontiki::{
    At, BlockingMachine, Config, Consistency, Error, MachineError, MetaRows, RaftNode, StateMachine,
    restored, snapshot_of,
};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, io::Read, time::Duration};

/// All locks there are.
#[derive(Default, Serialize, Deserialize)]
struct Locks {
    /// The highest token given so far: a lock that is free again does not give its token back.
    last_token: u64,
    lent: BTreeMap<String, Loan>,
}

/// A lock that is held.
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
struct Loan {
    owner: String,
    /// Fencing token: higher than that of every earlier loan of any lock.
    token: u64,
    /// The loan ends in this second of the cluster's clock.
    ends: u64,
}

#[derive(Serialize, Deserialize)]
enum Command {
    /// Lends a lock that is free, or whose loan has ended.
    Acquire {
        name: String,
        owner: String,
        ttl: Duration,
    },
    /// From now on the loan lasts this long, if it has not ended.
    Renew { name: String, token: u64, ttl: Duration },
    /// Ends a loan.
    Release { name: String, token: u64 },
}

/// Why a command changed nothing.
#[derive(PartialEq, Debug, Serialize, Deserialize)]
enum Refused {
    /// Another has the lock for this long still.
    Held { by: String, left: Duration },
    /// The loan with this token has ended.
    Ended,
}

impl StateMachine for Locks {
    type Command = Command;
    type Output = Result<Loan, Refused>;
    type Query = String;
    type Answer = Option<Loan>;

    fn apply(&mut self, at: &At, command: Command) -> Self::Output {
        let now = u64::from(at.clock_seconds);
        match command {
            Command::Acquire { name, owner, ttl } => self.acquire(now, name, owner, ttl),
            Command::Renew { name, token, ttl } => {
                let loan = self.running(now, &name, token)?;
                loan.ends = after(now, ttl);
                Ok(loan.clone())
            }
            Command::Release { name, token } => {
                self.running(now, &name, token)?;
                self.lent.remove(&name).ok_or(Refused::Ended)
            }
        }
    }

    /// The last loan, ended or not: a query has no time, only commands do.
    fn query(&self, name: String) -> Option<Loan> {
        self.lent.get(&name).cloned()
    }

    fn snapshot(&mut self) -> Result<Option<Box<dyn Read + Send>>, MachineError> {
        snapshot_of(self).map(Some)
    }

    fn restore(&mut self, from: &mut dyn Read, _: &MetaRows) -> Result<(), MachineError> {
        *self = restored(from)?;
        Ok(())
    }
}

impl Locks {
    fn acquire(&mut self, now: u64, name: String, owner: String, ttl: Duration) -> Result<Loan, Refused> {
        if let Some(loan) = self.lent.get(&name).filter(|loan| now < loan.ends) {
            let (by, left) = (loan.owner.clone(), Duration::from_secs(loan.ends - now));
            return Err(Refused::Held { by, left });
        }
        self.last_token += 1;
        let (token, ends) = (self.last_token, after(now, ttl));
        let loan = Loan { owner, token, ends };
        self.lent.insert(name, loan.clone());
        Ok(loan)
    }

    /// The loan with this token, if it has not ended.
    fn running(&mut self, now: u64, name: &str, token: u64) -> Result<&mut Loan, Refused> {
        let loan = self.lent.get_mut(name).ok_or(Refused::Ended)?;
        let runs = loan.token == token && now < loan.ends;
        runs.then_some(loan).ok_or(Refused::Ended)
    }
}

/// The second in which a loan of this length has certainly run out: the clock counts whole seconds.
fn after(now: u64, ttl: Duration) -> u64 {
    let whole = ttl.as_secs() + u64::from(ttl.subsec_nanos() > 0);
    now.saturating_add(whole).saturating_add(1)
}

/// What the lock protects: it remembers the highest token and takes nothing from a lower one.
#[derive(Default)]
struct Storage {
    highest: u64,
    written: Vec<&'static str>,
}

impl Storage {
    fn write(&mut self, token: u64, text: &'static str) -> Result<(), String> {
        if token < self.highest {
            return Err(format!(
                "token {token} is outdated, {} has been here",
                self.highest
            ));
        }
        self.highest = token;
        self.written.push(text);
        Ok(())
    }
}

/// Somebody who needs the lock, and asks one of the nodes for it.
struct Client<'a> {
    name: &'static str,
    node: &'a BlockingMachine<Locks>,
}

const LOCK: &str = "ledger";

impl Client<'_> {
    fn tell(&self, what: &str) {
        println!("{:>6}: {what}", self.name);
    }

    fn acquire(&self, ttl: Duration) -> Result<Result<Loan, Refused>, Error> {
        let (name, owner) = (LOCK.to_owned(), self.name.to_owned());
        let acquired = self.node.apply(Command::Acquire { name, owner, ttl })?.output;
        match &acquired {
            Ok(loan) => self.tell(&format!("has the lock, token {}", loan.token)),
            Err(refused) => self.tell(&format!("does not get the lock: {refused:?}")),
        }
        Ok(acquired)
    }

    fn renew(&self, token: u64, ttl: Duration) -> Result<Result<Loan, Refused>, Error> {
        let name = LOCK.to_owned();
        let renewed = self.node.apply(Command::Renew { name, token, ttl })?.output;
        self.tell(&match &renewed {
            Ok(_) => format!("renews its loan for {ttl:?}"),
            Err(refused) => format!("cannot renew: {refused:?}"),
        });
        Ok(renewed)
    }

    fn release(&self, token: u64) -> Result<Result<Loan, Refused>, Error> {
        let name = LOCK.to_owned();
        let released = self.node.apply(Command::Release { name, token })?.output;
        self.tell(&format!("gives the lock back: {}", released.is_ok()));
        Ok(released)
    }

    fn write(&self, storage: &mut Storage, token: u64, text: &'static str) -> Result<(), String> {
        let written = storage.write(token, text);
        self.tell(&match &written {
            Ok(()) => format!("writes {text:?}"),
            Err(why) => format!("writes {text:?}, and the storage refuses it: {why}"),
        });
        written
    }
}

fn main() -> Result<(), Error> {
    let dir = std::env::temp_dir().join(format!("kontiki-lock-{}", std::process::id()));
    let start = |config| {
        Ok(RaftNode::with_machine(config, Locks::default())?
            .start()?
            .blocking())
    };
    let nodes: Vec<_> = Config::loopback(3, &dir)?
        .into_iter()
        .map(start)
        .collect::<Result<_, Error>>()?;
    story(&nodes)?;
    nodes.iter().try_for_each(|node| node.shutdown())?;
    // The data is of no use to anyone; what cannot be removed stays.
    let _ = std::fs::remove_dir_all(dir);
    Ok(())
}

fn story(nodes: &[BlockingMachine<Locks>]) -> Result<(), Error> {
    let client = |name, node: usize| Client {
        name,
        node: &nodes[node],
    };
    let (anna, bert) = (client("Anna", 0), client("Bert", 1));
    let mut storage = Storage::default();
    let (minute, moment) = (Duration::from_secs(60), Duration::from_millis(50));

    let first = anna.acquire(minute)?.expect("the lock is free");
    assert_eq!(anna.write(&mut storage, first.token, "Anna was here"), Ok(()));
    let refused = bert.acquire(minute)?.expect_err("Anna has it");
    assert!(matches!(refused, Refused::Held { by, .. } if by == "Anna"));

    anna.renew(first.token, moment)?.expect("the loan still runs");
    anna.tell("falls asleep, and does not see its loan end");
    let second = loop {
        match bert.acquire(minute)? {
            Ok(loan) => break loan,
            Err(_) => std::thread::sleep(moment),
        }
    };
    assert!(second.token > first.token, "tokens rise");
    assert_eq!(bert.write(&mut storage, second.token, "Bert was here"), Ok(()));

    anna.tell("wakes up, and still believes that it has the lock");
    let late = anna.write(&mut storage, first.token, "Anna again");
    assert!(late.is_err(), "the storage has seen a higher token");
    let ended = Err(Refused::Ended);
    assert_eq!(anna.renew(first.token, minute)?, ended);
    assert_eq!(anna.release(first.token)?, ended, "it is Bert's");

    let seen = nodes[2].query(LOCK.to_owned(), Consistency::Linearizable)?;
    assert_eq!(seen.as_ref(), Some(&second), "another node sees the same");
    assert_eq!(bert.release(second.token)?.as_ref(), Ok(&second));
    let third = anna.acquire(minute)?.expect("the lock is free again");
    assert!(third.token > second.token, "a token is never given twice");
    assert_eq!(storage.written, ["Anna was here", "Bert was here"]);
    Ok(())
}

#[test]
fn it_runs() {
    main().unwrap();
}
