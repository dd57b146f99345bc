//! The promises of the fuzz targets (fuzz/src/lib.rs) on their seeds and on random changes of them, so that the
//! promises also hold between two nights of fuzzing.

use std::collections::BTreeSet;
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};

use keyhatch::grpc::pb;
use prost::Message as _;

use crate::harness::{report, scale};

#[path = "../../../fuzz/src/lib.rs"]
mod targets;

use targets::{REQUESTS, TARGETS, Target};

/// Bytes with a meaning in some parser.
const TELLING: &[u8] = b"\0\n:/*=,.% \"'{}[]_-@~+\x7f\xff\x80";

/// Random numbers that are the same in every run (splitmix64).
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, most: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mixed = (self.0 ^ self.0 >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        usize::try_from((mixed ^ mixed >> 31) >> 1).unwrap() % most.max(1)
    }
}

fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus")
}

fn entries(directory: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(directory).unwrap_or_else(|e| panic!("{directory:?}: {e}"));
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

/// A seed with one to four changes: a byte, a bit, a piece removed, doubled, or taken from another seed.
fn mutated(seeds: &[Vec<u8>], numbers: &mut Numbers) -> Vec<u8> {
    let mut data = seeds[numbers.below(seeds.len())].clone();
    for _ in 0..=numbers.below(4) {
        let at = numbers.below(data.len());
        let end = at + numbers.below(data.len() - at + 1).min(16);
        match numbers.below(6) {
            0 if !data.is_empty() => data[at] = numbers.below(256).try_into().unwrap(),
            1 if !data.is_empty() => data[at] ^= 1 << numbers.below(8),
            2 => drop(data.drain(at..end)),
            3 => {
                let piece = data[at..end].repeat(1 + numbers.below(40));
                drop(data.splice(at..at, piece));
            }
            4 => data.insert(at, TELLING[numbers.below(TELLING.len())]),
            _ => {
                let other = &seeds[numbers.below(seeds.len())];
                let from = numbers.below(other.len());
                data.truncate(at);
                data.extend(&other[from..]);
            }
        }
    }
    data
}

fn try_all(name: &str, target: Target, inputs: impl Iterator<Item = Vec<u8>>) -> usize {
    let mut tried = 0;
    for data in inputs {
        let outcome = catch_unwind(|| target(&data));
        assert!(outcome.is_ok(), "{name} on {:?}", String::from_utf8_lossy(&data));
        tried += 1;
    }
    tried
}

#[test]
fn fuzz_targets_hold_on_seeds_and_random_changes_of_them() {
    let changes = scale(10_000, 200_000);
    let mut tried = 0;
    for (name, target) in TARGETS {
        let seeds = entries(&corpus().join(name));
        let seeds: Vec<_> = seeds.iter().map(|path| std::fs::read(path).unwrap()).collect();
        tried += try_all(name, target, seeds.iter().cloned());
        let mut numbers = Numbers(1);
        tried += try_all(name, target, (0..changes).map(|_| mutated(&seeds, &mut numbers)));
    }
    report("inputs of the fuzzer's targets", format!("{tried} inputs"), "0 failures", "");
}

#[test]
fn every_fuzz_target_has_small_seeds_and_a_program() {
    let names: BTreeSet<_> = TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect();
    let named = |directory: &Path| -> BTreeSet<String> {
        let stem = |path: PathBuf| path.file_stem().unwrap().to_string_lossy().into_owned();
        entries(directory).into_iter().map(stem).collect()
    };
    let fuzz = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz");
    assert_eq!(named(&fuzz.join("corpus")), names);
    assert_eq!(named(&fuzz.join("fuzz_targets")), names);
    let manifest = std::fs::read_to_string(fuzz.join("Cargo.toml")).unwrap();
    for name in names {
        assert!(manifest.contains(&format!("path = \"fuzz_targets/{name}.rs\"")), "{name}");
        let seeds = entries(&fuzz.join("corpus").join(name));
        assert!((1..=20).contains(&seeds.len()));
        assert!(seeds.iter().all(|seed| seed.metadata().unwrap().len() < 4096));
    }
}

#[test]
fn every_request_of_the_api_is_fuzzed() {
    let set = prost_types::FileDescriptorSet::decode(pb::DESCRIPTORS).unwrap();
    let files = set.file.iter().filter(|file| file.package() == "keyhatch.v1");
    let methods = files.flat_map(|file| &file.service).flat_map(|service| &service.method);
    let requests = methods.map(|method| method.input_type().rsplit('.').next().unwrap());
    let fuzzed: BTreeSet<_> = REQUESTS.iter().map(|(name, _)| *name).collect();
    assert_eq!(fuzzed, requests.collect());
}
