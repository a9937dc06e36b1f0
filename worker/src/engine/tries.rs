//! How often a race with others is tried again in this process, and how long between.

use std::time::Duration;

use super::error::EngineError;

/// Counts the tries of one piece of work.
pub(crate) struct Tries {
    made: u32,
    most: u32,
    pause: Duration,
}

impl Tries {
    /// At most so many tries; the pause grows by itself with each.
    pub(crate) fn upto(most: u32, pause: Duration) -> Self {
        Self { made: 0, most, pause }
    }

    /// Pauses before another try on the same session.
    ///
    /// # Errors
    /// The error itself, where another try wouldn't help or there were enough.
    pub(crate) async fn again(&mut self, error: EngineError) -> Result<(), EngineError> {
        let helps = error.is_race();
        self.pause_if(helps, error).await
    }

    /// Pauses before another try on a session of its own: it finds whether a commit took place at
    /// which the connection broke.
    ///
    /// # Errors
    /// As [`Tries::again`].
    pub(crate) async fn again_anew(&mut self, error: EngineError) -> Result<(), EngineError> {
        let helps = error.is_race() || error.connection_lost();
        self.pause_if(helps, error).await
    }

    async fn pause_if(&mut self, helps: bool, error: EngineError) -> Result<(), EngineError> {
        self.made += 1;
        if !helps || self.made >= self.most {
            return Err(error);
        }
        tokio::time::sleep(self.pause * self.made).await;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn coded(code: &str) -> EngineError {
        EngineError::transient("x").code(code)
    }

    async fn tries_until_given_up(code: &str, anew: bool) -> u32 {
        let mut tries = Tries::upto(3, Duration::ZERO);
        let mut made = 1;
        loop {
            let again =
                if anew { tries.again_anew(coded(code)).await } else { tries.again(coded(code)).await };
            match again {
                Ok(()) => made += 1,
                Err(error) => {
                    assert_eq!(error, coded(code));
                    return made;
                }
            }
        }
    }

    #[tokio::test]
    async fn races_are_tried_again_and_broken_connections_only_on_a_new_session() {
        for (code, anew, expected) in [
            ("40001", false, 3),
            ("40001", true, 3),
            ("08006", false, 1),
            ("08006", true, 3),
            ("53300", true, 1),
        ] {
            assert_eq!(tries_until_given_up(code, anew).await, expected, "{code}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn pauses_grow() {
        let mut tries = Tries::upto(3, Duration::from_millis(20));
        let before = tokio::time::Instant::now();
        tries.again(coded("40001")).await.unwrap();
        tries.again(coded("40001")).await.unwrap();
        assert_eq!(before.elapsed(), Duration::from_millis(60));
    }
}
