//! Drives a supervisor's [`Children`] from inside its context: events, time and the supervisor's own stop.

use std::future::Future;
use std::pin::Pin;
use std::task::{self, Poll};

use actix::fut::ActorFuture;
use actix::{ActorContext, AsyncContext, Context};
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::time::{Instant, Sleep, sleep_until};

use super::Supervising;
use super::run::Event;
use super::steps::Outlook;
use crate::supervision::ExitHandle;

struct Pump {
    inbox: UnboundedReceiver<Event>,
    /// `None` once it has completed.
    stop_requested: Option<Pin<Box<dyn Future<Output = ()>>>>,
    alarm: Pin<Box<Sleep>>,
}

pub(super) fn attach<S: Supervising>(
    inbox: UnboundedReceiver<Event>,
    exit: &ExitHandle,
    ctx: &mut Context<S>,
) {
    let stop_requested: Pin<Box<dyn Future<Output = ()>>> = Box::pin(exit.stop_requested());
    let alarm = Box::pin(sleep_until(Instant::now()));
    ctx.spawn(Pump { inbox, stop_requested: Some(stop_requested), alarm });
}

impl<S: Supervising> ActorFuture<S> for Pump {
    type Output = ();

    fn poll(
        mut self: Pin<&mut Self>,
        supervisor: &mut S,
        ctx: &mut Context<S>,
        task: &mut task::Context<'_>,
    ) -> Poll<()> {
        let stop_requested = self.stop_requested.as_mut().map(|requested| requested.as_mut().poll(task));
        if stop_requested.is_some_and(|requested| requested.is_ready()) {
            self.stop_requested = None;
            supervisor.children().shut_down();
        }
        while let Poll::Ready(Some(event)) = self.inbox.poll_recv(task) {
            let children = supervisor.children();
            let Some(started) = children.handle(event, Instant::now()) else { continue };
            let name = children.children[started].spec.name.clone();
            supervisor.child_started(&name, ctx);
        }
        match supervisor.children().advance(Instant::now()) {
            Outlook::Over => {
                ctx.stop();
                Poll::Ready(())
            }
            Outlook::Quiet => Poll::Pending,
            Outlook::Until(at) => {
                self.alarm.as_mut().reset(at);
                if self.alarm.as_mut().poll(task).is_ready() {
                    // Not in a loop: other actors of this thread come first.
                    task.waker().wake_by_ref();
                }
                Poll::Pending
            }
        }
    }
}
