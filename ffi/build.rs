//! Builds the C shim and links libipsec-mb (Debian's libipsec-mb-dev 1.3) statically where the target is x86-64, and compiles in a hash of the sources, so that a library built from other sources than the tree's is noticed.
//! `tests/differential/kernels_test.ts` recomputes it: SHA-256 over, for each file in the order of its path's
//! bytes, path, a zero byte, length as eight little-endian bytes, content.

use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};
use std::{env, fs};

const FILES: [&str; 3] = ["Cargo.lock", "Cargo.toml", "build.rs"];

fn collect(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).expect("the sources are readable") {
        let path = entry.expect("the sources are readable").path();
        if path.is_dir() {
            collect(&path, found);
        } else {
            found.push(path);
        }
    }
}

fn main() {
    if env::var("CARGO_CFG_TARGET_ARCH").as_deref() == Ok("x86_64") {
        cc::Build::new().file("src/codec/ipsec_mb.c").compile("ipsec_mb_shim");
        println!("cargo::rustc-link-search=/usr/lib/x86_64-linux-gnu");
        println!("cargo::rustc-link-lib=static=IPSec_MB");
    }
    // AWS-LC frees its state of a thread when the thread ends (a pthread key's destructor), which may be after the last
    // Worker closed the library: it stays mapped for good.
    println!("cargo::rustc-cdylib-link-arg=-Wl,-z,nodelete");

    let mut paths: Vec<PathBuf> = FILES.iter().map(PathBuf::from).collect();
    collect(Path::new("src"), &mut paths);
    // By bytes: PathBuf itself compares folder by folder.
    paths.sort_by(|a, b| a.as_os_str().cmp(b.as_os_str()));
    let mut hash = Sha256::new();
    for path in &paths {
        let content = fs::read(path).expect("the sources are readable");
        hash.update(path.to_str().expect("the paths are ASCII"));
        hash.update([0]);
        hash.update((content.len() as u64).to_le_bytes());
        hash.update(content);
    }
    let out = PathBuf::from(env::var("OUT_DIR").expect("cargo sets OUT_DIR"));
    fs::write(out.join("source_hash"), hash.finalize()).expect("OUT_DIR is writable");
    println!("cargo::rerun-if-changed=src");
    for file in FILES {
        println!("cargo::rerun-if-changed={file}");
    }
}
