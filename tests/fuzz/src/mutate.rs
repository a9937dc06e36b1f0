//! Mutations that a seed determines: the same seed gives the same inputs on every machine.

/// Changes inputs as a fuzzer would, without knowing what they reach.
#[derive(Debug, Clone)]
pub struct Mutator {
    state: u64,
    words: Vec<Vec<u8>>,
}

/// Inputs grow no larger than this.
const MAX_BYTES: usize = 16 << 10;

impl Mutator {
    /// A mutator for a seed and a dictionary in libFuzzer's format.
    pub fn new(seed: u64, dictionary: &str) -> Self {
        Self { state: seed, words: dictionary.lines().filter_map(word).collect() }
    }

    /// A new input made of known ones, of which there must be one at least.
    pub fn next(&mut self, known: &[Vec<u8>]) -> Vec<u8> {
        let mut input = known[self.below(known.len())].clone();
        for _ in 0..=self.below(5) {
            self.change(&mut input, known);
        }
        input.truncate(MAX_BYTES);
        input
    }

    fn change(&mut self, input: &mut Vec<u8>, known: &[Vec<u8>]) {
        let at = self.below(input.len() + 1);
        let end = at + self.below((input.len() - at).min(64) + 1);
        match self.below(9) {
            0 => input.insert(at, self.random() as u8),
            1 if at < input.len() => input[at] ^= 1 << self.below(8),
            2 if at < input.len() => input[at] = b"\0'\"`@(){}[];,.:-%\\\n\xff0"[self.below(21)],
            3 => drop(input.drain(at..end)),
            4 => {
                let piece = input[at..end].to_vec();
                let to = self.below(input.len() + 1);
                let times = 1 << self.below(8);
                drop(input.splice(to..to, piece.repeat(times)));
            }
            5 => {
                let other = &known[self.below(known.len())];
                let from = self.below(other.len() + 1);
                drop(input.splice(at.., other[from..].iter().copied()));
            }
            6 => {
                let number = [0, 1, i64::MAX, i64::MIN, 4_294_967_296, -1, 1 << 53][self.below(7)];
                drop(input.splice(at..end, number.to_string().into_bytes()));
            }
            _ if !self.words.is_empty() => {
                let which = self.below(self.words.len());
                let word = self.words[which].clone();
                drop(input.splice(at..if self.below(2) == 0 { at } else { end }, word));
            }
            _ => input.truncate(at),
        }
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.random() % limit.max(1) as u64) as usize
    }

    /// SplitMix64.
    fn random(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

/// The word of a line such as `"SELECT "` or `at="@"`; `\xNN` stands for a byte.
fn word(line: &str) -> Option<Vec<u8>> {
    if line.starts_with('#') {
        return None;
    }
    let (from, to) = (line.find('"')? + 1, line.rfind('"')?);
    let mut rest = line.get(from..to)?.as_bytes();
    let mut word = Vec::new();
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        match (byte, after) {
            (b'\\', [b'x', high, low, after @ ..]) => {
                let digits = [*high, *low];
                word.push(u8::from_str_radix(std::str::from_utf8(&digits).ok()?, 16).ok()?);
                rest = after;
            }
            (b'\\', [byte, after @ ..]) => {
                word.push(*byte);
                rest = after;
            }
            _ => word.push(*byte),
        }
    }
    Some(word)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_determines_all_inputs() {
        let known = [b"SELECT 1".to_vec(), b"x".to_vec()];
        let inputs = |seed| {
            let mut mutator = Mutator::new(seed, "\"FROM\"\n# no \"word\"\n");
            (0..100).map(|_| mutator.next(&known)).collect::<Vec<_>>()
        };
        assert_eq!(inputs(1), inputs(1));
        assert_ne!(inputs(1), inputs(2));
    }

    #[test]
    fn words_are_read_as_libfuzzer_reads_them() {
        assert_eq!(word(r#"at="a\x0ab\"\\""#), Some(b"a\nb\"\\".to_vec()));
        assert_eq!(word("# \"x\""), None);
    }
}
