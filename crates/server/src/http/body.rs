//! Reads a request's body into one piece, within its bounds.
//!
//! A body that came with its head is passed on as the bytes it arrived in. One that comes in pieces is copied together,
//! and such bodies share a budget: there can be as many of them as connections.

use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use hyper::body::Body;

use super::Limits;
use super::refusal::Refusal;

/// Bytes held by bodies that arrived in pieces.
#[derive(Debug, Default)]
pub(super) struct Budget(AtomicUsize);

/// A body, and what it takes of the budget while it is held.
#[derive(Debug, Default)]
pub(super) struct Whole<'a> {
    bytes: Bytes,
    _share: Option<Share<'a>>,
}

#[derive(Debug)]
struct Share<'a> {
    budget: &'a Budget,
    bytes: usize,
}

impl Whole<'_> {
    pub(super) fn bytes(&self) -> &Bytes {
        &self.bytes
    }
}

impl Share<'_> {
    fn grow(&mut self, by: usize, max: usize) -> Result<(), Refusal> {
        self.bytes += by;
        let before = self.budget.0.fetch_add(by, Ordering::Relaxed);
        if before.saturating_add(by) > max { Err(Refusal::Unavailable) } else { Ok(()) }
    }
}

impl Drop for Share<'_> {
    fn drop(&mut self) {
        self.budget.0.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

/// Reads to the end.
///
/// # Errors
/// The body, or all of them together, are too large, or the peer broke off.
pub(super) async fn read_whole<'a, B: Body<Data = Bytes>>(
    mut body: Pin<&mut B>,
    budget: &'a Budget,
    limits: &Limits,
) -> Result<Whole<'a>, Refusal> {
    let max = limits.request_body_bytes_max;
    let too_large = Refusal::BodyTooLarge { max };
    if body.size_hint().lower() > max as u64 {
        return Err(too_large);
    }
    let Some(first) = next_piece(body.as_mut()).await? else { return Ok(Whole::default()) };
    if first.len() > max {
        return Err(too_large);
    }
    if body.is_end_stream() {
        return Ok(Whole { bytes: first, _share: None });
    }
    let mut share = Share { budget, bytes: 0 };
    share.grow(first.len(), limits.bodies_bytes_max)?;
    let mut whole = first.to_vec();
    while let Some(piece) = next_piece(body.as_mut()).await? {
        if piece.len() > max - whole.len() {
            return Err(too_large);
        }
        share.grow(piece.len(), limits.bodies_bytes_max)?;
        whole.extend_from_slice(&piece);
    }
    Ok(Whole { bytes: whole.into(), _share: Some(share) })
}

/// The next data, passing over trailers.
async fn next_piece<B: Body<Data = Bytes>>(mut body: Pin<&mut B>) -> Result<Option<Bytes>, Refusal> {
    loop {
        match std::future::poll_fn(|cx| body.as_mut().poll_frame(cx)).await {
            None => return Ok(None),
            Some(Err(_)) => return Err(Refusal::BodyBroken),
            Some(Ok(frame)) => {
                if let Ok(data) = frame.into_data() {
                    return Ok(Some(data));
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::convert::Infallible;
    use std::pin::pin;
    use std::task::{Context, Poll};

    use hyper::body::Frame;

    use super::*;

    /// A body that arrives piece by piece, without saying how long it will be.
    struct Pieces(VecDeque<&'static [u8]>);

    impl Body for Pieces {
        type Data = Bytes;
        type Error = Infallible;

        fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
            Poll::Ready(self.0.pop_front().map(|piece| Ok(Frame::data(Bytes::from_static(piece)))))
        }
    }

    async fn read<'a>(pieces: &[&'static str], budget: &'a Budget, limits: &Limits) -> Result<Whole<'a>, Refusal> {
        let body = Pieces(pieces.iter().map(|piece| piece.as_bytes()).collect());
        read_whole(pin!(body), budget, limits).await
    }

    /// HTTP-8
    #[tokio::test]
    async fn a_body_in_pieces_is_put_together_and_refused_at_the_first_byte_too_many() {
        let limits = Limits { request_body_bytes_max: 8, ..Limits::default() };
        let budget = Budget::default();
        for (pieces, whole) in [(&[][..], ""), (&["12345678"], "12345678"), (&["123", "", "45678"], "12345678")] {
            assert_eq!(read(pieces, &budget, &limits).await.expect("fits").bytes(), whole);
        }
        for pieces in [&["123456789"][..], &["12345678", "9"]] {
            let refusal = read(pieces, &budget, &limits).await.expect_err("too long");
            assert!(matches!(refusal, Refusal::BodyTooLarge { max: 8 }), "{refusal}");
        }
    }

    /// HTTP-8
    #[tokio::test]
    async fn bodies_in_pieces_share_a_budget_and_give_it_back() {
        let limits = Limits { bodies_bytes_max: 10, ..Limits::default() };
        let budget = Budget::default();
        let held = read(&["1234", "56"], &budget, &limits).await.expect("fits");
        assert!(matches!(read(&["1234", "56"], &budget, &limits).await, Err(Refusal::Unavailable)));
        drop(held);
        assert!(read(&["1234", "56"], &budget, &limits).await.is_ok());
        assert_eq!(budget.0.load(Ordering::Relaxed), 0);
    }
}
