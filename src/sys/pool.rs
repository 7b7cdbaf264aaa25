//! The frames that nobody uses at the moment. Generic, so that tests can drive the same
//! bookkeeping with frames of their own.

/// Free frames of one UMEM, a stack, so that the warmest memory is used first.
#[derive(Debug)]
pub struct FramePool<F> {
    free: Vec<F>,
    frame_count: u32,
}

impl<F> FramePool<F> {
    /// A pool that holds every frame of a UMEM at the start. It never allocates afterwards.
    #[must_use]
    pub fn new(frames: Vec<F>) -> Self {
        // Frame counts come from a u32 configuration; a longer list cannot be made.
        let frame_count = u32::try_from(frames.len()).unwrap_or(u32::MAX);
        Self {
            free: frames,
            frame_count,
        }
    }

    /// Takes one frame out, or none when all are under way.
    pub fn take(&mut self) -> Option<F> {
        self.free.pop()
    }

    /// Gives one frame back.
    pub fn put(&mut self, frame: F) {
        debug_assert!(
            self.free.len() < self.frame_count as usize,
            "a frame came back twice"
        );
        self.free.push(frame);
    }

    /// Frames that are free now.
    #[must_use]
    pub fn free(&self) -> u32 {
        u32::try_from(self.free.len()).unwrap_or(u32::MAX)
    }

    /// Frames that the pool was made with.
    #[must_use]
    pub const fn frame_count(&self) -> u32 {
        self.frame_count
    }

    /// Frames that are somewhere else: in a ring or in a worker's hands.
    #[must_use]
    pub fn outstanding(&self) -> u32 {
        self.frame_count.saturating_sub(self.free())
    }
}

#[cfg(test)]
mod tests {
    use super::FramePool;

    #[test]
    fn what_is_taken_is_outstanding_until_it_is_put_back() {
        let mut pool = FramePool::new(vec![1, 2, 3]);
        let frame = pool.take().unwrap();
        assert_eq!(
            (pool.free(), pool.outstanding(), pool.frame_count()),
            (2, 1, 3)
        );
        pool.put(frame);
        assert_eq!((pool.free(), pool.outstanding()), (3, 0));
    }

    #[test]
    fn an_empty_pool_gives_nothing() {
        let mut pool: FramePool<u8> = FramePool::new(Vec::new());
        assert_eq!(pool.take(), None);
    }
}
