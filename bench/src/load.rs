//! Clients that each have one request under way at a time, and what they saw.
//!
//! A request that fails ends the run: a figure in which some are missing is none.

use crate::{Failed, histogram::Histogram};
use std::{
    collections::VecDeque,
    fmt,
    future::poll_fn,
    pin::{Pin, pin},
    str::FromStr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

/// One client.
pub(crate) trait Client: Send + 'static {
    /// One request, until it is answered.
    fn call(&mut self) -> impl Future<Output = Result<(), Failed>> + Send;
}

/// How long a run is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stretch {
    /// What is done first and not counted.
    pub(crate) warm: Duration,
    pub(crate) run: Duration,
}

impl Stretch {
    /// Of two words, each in ms.
    pub(crate) fn parse(warm: &str, run: &str) -> Result<Self, Failed> {
        let (warm, run) = (
            warm.parse().map(Duration::from_millis)?,
            run.parse().map(Duration::from_millis)?,
        );
        Ok(Self { warm, run })
    }
}

/// What clients saw.
#[derive(Clone, Copy, PartialEq, Debug)]
pub(crate) struct Figures {
    /// Answered, from the first to the last, while getting warm too.
    pub(crate) total: u64,
    /// Answered a second, without the time for getting warm.
    pub(crate) per_second: f64,
    pub(crate) p50: Duration,
    pub(crate) p99: Duration,
    pub(crate) p999: Duration,
    pub(crate) p9999: Duration,
    pub(crate) max: Duration,
}

impl Figures {
    pub(crate) fn of(latencies: &Histogram, total: u64, time: Duration) -> Self {
        Self {
            total,
            per_second: latencies.count() as f64 / time.as_secs_f64(),
            p50: latencies.quantile(0.5),
            p99: latencies.quantile(0.99),
            p999: latencies.quantile(0.999),
            p9999: latencies.quantile(0.9999),
            max: latencies.max(),
        }
    }
}

/// As a line from one process to another.
impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.total, self.per_second)?;
        [self.p50, self.p99, self.p999, self.p9999, self.max]
            .iter()
            .try_for_each(|d| write!(f, " {}", d.as_nanos()))
    }
}

impl FromStr for Figures {
    type Err = Failed;

    fn from_str(line: &str) -> Result<Self, Failed> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [total, per_second, times @ ..] = &words[..] else {
            return Err(format!("`{line}` is no measurement").into());
        };
        let times = times
            .iter()
            .map(|word| word.parse().map(Duration::from_nanos))
            .collect::<Result<Vec<_>, _>>()?;
        let [p50, p99, p999, p9999, max] = times[..] else {
            return Err(format!("`{line}` is no measurement").into());
        };
        Ok(Self {
            total: total.parse()?,
            per_second: per_second.parse()?,
            p50,
            p99,
            p999,
            p9999,
            max,
        })
    }
}

/// What all clients of a run have seen.
struct Run {
    /// From when on, and until when, answers are counted.
    from: Instant,
    end: Instant,
    latencies: Mutex<Histogram>,
}

impl Run {
    fn latencies(&self) -> MutexGuard<'_, Histogram> {
        self.latencies.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How many answers a client counts before it tells. A histogram for each of a thousand clients is too much for any cache, and one
/// for all that is locked at each answer too slow: both would be counted as the work of whom is measured.
const UNTOLD_MAX: usize = 64;

/// What one or several clients have seen so far.
pub(crate) struct Seen {
    run: Arc<Run>,
    /// How long the last ones took, in ns.
    untold: Vec<u64>,
    answered: u64,
}

impl Seen {
    /// An answer has come to what was asked at this time. The time now, if the client is to ask again.
    pub(crate) fn answered(&mut self, began: Instant) -> Option<Instant> {
        self.answered += 1;
        let now = Instant::now();
        if now >= self.run.from && now <= self.run.end {
            let nanos = (now - began).as_nanos();
            self.untold.push(u64::try_from(nanos).unwrap_or(u64::MAX));
            if self.untold.len() == UNTOLD_MAX {
                self.tell();
            }
        }
        (now < self.run.end).then_some(now)
    }

    fn tell(&mut self) {
        let mut latencies = self.run.latencies();
        for nanos in self.untold.drain(..) {
            latencies.record(Duration::from_nanos(nanos));
        }
    }
}

/// Clients that each have one request under way at a time, and share what they do it with.
pub(crate) trait Clients: Send + 'static {
    /// Asks again and again until it is time to end, and all is answered.
    fn ask(self, seen: &mut Seen) -> impl Future<Output = Result<(), Failed>> + Send;
}

impl<C: Client> Clients for C {
    async fn ask(mut self, seen: &mut Seen) -> Result<(), Failed> {
        let mut began = Some(Instant::now());
        while let Some(asked) = began {
            self.call().await?;
            began = seen.answered(asked);
        }
        Ok(())
    }
}

/// Lets clients ask again and again, each as soon as it was answered. On the runtime this is called on.
pub(crate) async fn closed_loop<C: Clients>(clients: Vec<C>, stretch: Stretch) -> Result<Figures, Failed> {
    let from = Instant::now() + stretch.warm;
    let run = Arc::new(Run {
        from,
        end: from + stretch.run,
        latencies: Mutex::new(Histogram::new()),
    });
    let ask = |clients: C| {
        let mut seen = Seen {
            run: run.clone(),
            untold: Vec::with_capacity(UNTOLD_MAX),
            answered: 0,
        };
        async move {
            clients.ask(&mut seen).await?;
            seen.tell();
            Ok::<_, Failed>(seen.answered)
        }
    };
    let running: Vec<_> = clients
        .into_iter()
        .map(|clients| tokio::spawn(ask(clients)))
        .collect();
    let mut total = 0;
    for clients in running {
        total += clients.await??;
    }
    Ok(Figures::of(&run.latencies(), total, stretch.run))
}

/// What is later than this is counted from when it was due.
const LATE: Duration = Duration::from_millis(5);
/// How many may be unanswered before the run is given up: then the load was more than is possible.
const UNANSWERED_MAX: usize = 1_000_000;

/// A request that was made, and the time at which its answer was found.
pub(crate) struct Timed<A>(pub(crate) A);

impl<A, T, E> Future for Timed<A>
where
    A: Future<Output = Result<T, E>> + Unpin,
    Failed: From<E>,
{
    type Output = Result<Instant, Failed>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let answer = ready!(Pin::new(&mut self.0).poll(context));
        Poll::Ready(Ok(answer.map(|_| Instant::now())?))
    }
}

/// Requests that came at their times and are not answered.
struct UnderWay<A> {
    asked: VecDeque<(Instant, A)>,
    latencies: Histogram,
    /// From when on they are counted.
    from: Instant,
}

impl<A: Future<Output = Result<Instant, Failed>> + Unpin> UnderWay<A> {
    /// Looks for answers until the first is found missing; `Ready` if there is none under way.
    fn poll(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Failed>> {
        while let Some((begun, answer)) = self.asked.front_mut() {
            let answered = ready!(Pin::new(answer).poll(context))?;
            if *begun >= self.from {
                self.latencies.record(answered - *begun);
            }
            self.asked.pop_front();
        }
        Poll::Ready(Ok(()))
    }

    /// Looks for answers for a while.
    async fn wait(&mut self, time: Duration) -> Result<(), Failed> {
        let mut tick = pin!(tokio::time::sleep(time));
        poll_fn(|context| match self.poll(context) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(error)),
            _ => tick.as_mut().poll(context).map(Ok),
        })
        .await
    }
}

/// Asks so often a second, whether or not those before are answered. On the runtime this is called on. A request goes on by
/// itself once it is made: all are looked after by one task, in the order they were made in, as a program would do that has so
/// many under way; a task for each took as long as the answer itself.
pub(crate) async fn paced<F, A>(per_second: f64, stretch: Stretch, mut ask: F) -> Result<Figures, Failed>
where
    F: FnMut() -> A,
    A: Future<Output = Result<Instant, Failed>> + Unpin,
{
    let began = Instant::now();
    let from = began + stretch.warm;
    let end = from + stretch.run;
    let mut under_way = UnderWay {
        asked: VecDeque::new(),
        latencies: Histogram::new(),
        from,
    };
    let mut asked = 0;
    while Instant::now() < end {
        let due = (began.elapsed().as_secs_f64() * per_second) as u64;
        while asked < due {
            let planned = began + Duration::from_secs_f64(asked as f64 / per_second);
            let (answer, now) = (ask(), Instant::now());
            let begun = if now - planned > LATE { planned } else { now };
            under_way.asked.push_back((begun, answer));
            asked += 1;
        }
        if under_way.asked.len() > UNANSWERED_MAX {
            return Err("it does not keep up with the load".into());
        }
        under_way.wait(Duration::from_millis(1)).await?;
    }
    poll_fn(|context| under_way.poll(context)).await?;
    Ok(Figures::of(&under_way.latencies, asked, stretch.run))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_the_same_on_the_other_side() {
        let mut seen = Histogram::new();
        (1..=10).for_each(|n| seen.record(Duration::from_micros(n)));
        let figures = Figures::of(&seen, 12, Duration::from_secs(2));
        assert_eq!(figures.per_second, 5.0);
        assert_eq!(
            figures.to_string().parse::<Figures>().expect("just written"),
            figures
        );
        assert!("1 2 3".parse::<Figures>().is_err());
    }

    struct Fails(u32);

    impl Client for Fails {
        async fn call(&mut self) -> Result<(), Failed> {
            self.0 -= 1;
            tokio::task::yield_now().await;
            if self.0 == 0 {
                Err("no more".into())
            } else {
                Ok(())
            }
        }
    }

    #[test]
    fn a_failed_request_is_a_failed_run() {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_time()
            .build()
            .expect("a runtime");
        let stretch = Stretch {
            warm: Duration::ZERO,
            run: Duration::from_secs(3600),
        };
        let clients = vec![Fails(3), Fails(u32::MAX)];
        assert!(runtime.block_on(async {
            // The other would go on for an hour.
            let mut clients = clients.into_iter();
            closed_loop(clients.by_ref().take(1).collect(), stretch)
                .await
                .is_err()
        }));
    }
}
