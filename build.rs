//! Compiles `proto/` to Rust without protoc. Messages that can carry plaintext get no `Debug`: those with a
//! `debug_redact` field, and those that contain such a message. Chooses linker options for the local C library.

use std::collections::BTreeSet;
use std::env::var;
use std::error::Error;
use std::path::PathBuf;
use std::process::Command;

use protox::prost_reflect::prost::Message as _;
use protox::prost_reflect::prost_types::FileDescriptorProto;
use protox::prost_reflect::{FieldDescriptor, Kind, MessageDescriptor};

const PROTOS: [&str; 7] = [
    "keyhatch/v1/admin.proto",
    "keyhatch/v1/executor.proto",
    "keyhatch/v1/impact.proto",
    "keyhatch/v1/incident.proto",
    "keyhatch/v1/resources.proto",
    "keyhatch/v1/runs.proto",
    "keyhatch/v1/step.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto");
    let mut compiler = protox::Compiler::new(["proto"])?;
    compiler.include_source_info(true).include_imports(true);
    for proto in PROTOS {
        compiler.open_file(proto)?;
    }
    let pool = compiler.descriptor_pool();
    let messages: Vec<_> = pool.all_messages().collect();
    let secret = plaintext_messages(&messages);

    let mut descriptors = compiler.file_descriptor_set();
    let mut generator = tonic_prost_build::configure().btree_map(".").skip_debug(&secret);
    generator = generator.codec_path("crate::grpc::edge::codec::Codec");
    for padding in paddings(&messages) {
        generator = generator.bytes(padding);
    }
    let mut config = tonic_prost_build::Config::new();
    config.enable_type_names();
    generator.compile_fds_with_config(descriptors.clone(), config)?;
    descriptors.file.iter_mut().for_each(keep_comments);
    let out = PathBuf::from(var("OUT_DIR")?);
    std::fs::write(out.join("descriptors.bin"), descriptors.encode_to_vec())?;
    if var("HOST")? == var("TARGET")? && has_packed_relocations() {
        println!("cargo::rustc-link-arg-bins=-Wl,-z,pack-relative-relocs");
    }
    Ok(())
}

/// True if the local C library supports DT_RELR, as glibc does from 2.36 on. Relocations then take a hundredth of the
/// space, and an idle daemon 2 MB less (benches/RESULTS.md).
fn has_packed_relocations() -> bool {
    let Ok(answer) = Command::new("getconf").arg("GNU_LIBC_VERSION").output() else { return false };
    let answer = String::from_utf8_lossy(&answer.stdout);
    let version = answer.trim().strip_prefix("glibc ").and_then(|version| version.split_once('.'));
    version.is_some_and(|(major, minor)| {
        (major.parse().ok(), minor.parse().ok()) >= (Some(2), Some(36))
    })
}

/// Drops source positions but keeps our comments, for readers of the API by reflection. It saves 1 MB in each daemon.
fn keep_comments(file: &mut FileDescriptorProto) {
    let is_ours = file.package().starts_with("keyhatch.");
    if let Some(info) = &mut file.source_code_info {
        info.location.retain(|location| {
            let is_before = location.leading_comments.is_some();
            is_ours && (is_before || !location.leading_detached_comments.is_empty())
        });
    }
}

/// The messages with a redacted field, and all messages that contain one of them.
fn plaintext_messages(messages: &[MessageDescriptor]) -> Vec<String> {
    let mut secret = BTreeSet::new();
    loop {
        let before = secret.len();
        for message in messages {
            if message.fields().any(|f| is_redacted(&f) || holds(&f, &secret)) {
                secret.insert(message.full_name().to_owned());
            }
        }
        if secret.len() == before {
            return secret.into_iter().collect();
        }
    }
}

/// The padding fields of replies. As `Bytes` they are slices of one block of zeros, without a copy.
fn paddings(messages: &[MessageDescriptor]) -> Vec<String> {
    let fields = messages.iter().flat_map(MessageDescriptor::fields);
    let paddings = fields.filter(|field| field.name() == "padding");
    paddings.map(|field| format!(".{}", field.full_name())).collect()
}

fn is_redacted(field: &FieldDescriptor) -> bool {
    field
        .options()
        .get_field_by_name("debug_redact")
        .is_some_and(|value| value.as_bool() == Some(true))
}

fn holds(field: &FieldDescriptor, secret: &BTreeSet<String>) -> bool {
    matches!(field.kind(), Kind::Message(inner) if secret.contains(inner.full_name()))
}
