//! Two futures at once, until the first of them completes.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;

/// Which of the two was first.
#[derive(Debug, PartialEq, Eq)]
pub enum First<A, B> {
    /// The left one.
    Left(A),
    /// The right one.
    Right(B),
}

/// Completes with whichever completes first and drops the other; the left one, if both could.
pub async fn first<A, B>(left: impl Future<Output = A>, right: impl Future<Output = B>) -> First<A, B> {
    let (mut left, mut right) = (pin!(left), pin!(right));
    poll_fn(|cx| {
        if let Poll::Ready(done) = left.as_mut().poll(cx) {
            return Poll::Ready(First::Left(done));
        }
        right.as_mut().poll(cx).map(First::Right)
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::{pending, ready};

    #[actix_web::test]
    async fn the_first_one_counts_and_the_left_one_if_both_are_ready() {
        assert_eq!(first(ready(1), pending::<u8>()).await, First::Left(1));
        assert_eq!(first(pending::<u8>(), ready(2)).await, First::Right(2));
        assert_eq!(first(ready(1), ready(2)).await, First::Left(1));
    }
}
