//! The methods of each door, as the protos define them.

use prost::Message;

use crate::grpc::pb;

/// The needed part of a descriptor (google/protobuf/descriptor.proto). Decoding skips the rest without storing it.
#[derive(Message)]
struct FileDescriptorSet {
    #[prost(message, repeated, tag = 1)]
    file: Vec<FileDescriptor>,
}

#[derive(Message)]
struct FileDescriptor {
    #[prost(string, tag = 2)]
    package: String,
    #[prost(message, repeated, tag = 6)]
    service: Vec<ServiceDescriptor>,
}

#[derive(Message)]
struct ServiceDescriptor {
    #[prost(string, tag = 1)]
    name: String,
    #[prost(message, repeated, tag = 2)]
    method: Vec<MethodDescriptor>,
}

#[derive(Message)]
struct MethodDescriptor {
    #[prost(string, tag = 1)]
    name: String,
    #[prost(bool, tag = 6)]
    server_streaming: bool,
}

/// The service of the step door.
const STEP_SERVICE: &str = "keyhatch.v1.StepService";
/// The service on both doors.
const HEALTH: &str = "grpc.health.v1.Health";

/// The methods of both doors, each as "package.Service/Method".
pub struct Methods {
    /// The methods of the step door.
    pub steps: Vec<String>,
    /// The methods of the admin door.
    pub admin: Vec<String>,
    /// The methods of either door that answer with a stream.
    pub streams: Vec<String>,
}

/// Every method that the daemon serves.
pub fn methods() -> Methods {
    let sets = [
        pb::DESCRIPTORS,
        tonic_health::pb::FILE_DESCRIPTOR_SET,
        tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET,
        tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET,
    ];
    let (mut steps, mut admin, mut streams) = (Vec::new(), Vec::new(), Vec::new());
    // Built-in descriptors are well formed.
    let files = sets.into_iter().filter_map(|set| FileDescriptorSet::decode(set).ok());
    for file in files.flat_map(|set| set.file) {
        for service in &file.service {
            let name = format!("{}.{}", file.package, service.name);
            let full = |method: &MethodDescriptor| format!("{name}/{}", method.name);
            let methods = service.method.iter().map(full);
            streams.extend(service.method.iter().filter(|one| one.server_streaming).map(full));
            if name == STEP_SERVICE || name == HEALTH {
                steps.extend(methods.clone());
            }
            if name != STEP_SERVICE {
                admin.extend(methods);
            }
        }
    }
    Methods { steps, admin, streams }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_door_has_its_methods() {
        let Methods { steps, admin, streams } = methods();
        let has = |methods: &[String], name: &str| methods.iter().any(|method| method == name);
        for name in ["keyhatch.v1.StepService/Resolve", "grpc.health.v1.Health/Check"] {
            assert!(has(&steps, name), "{name}");
        }
        for name in [
            "keyhatch.v1.SystemService/GetStatus",
            "grpc.health.v1.Health/Watch",
            "grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
            "grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
        ] {
            assert!(has(&admin, name), "{name}");
            assert!(!has(&admin, "keyhatch.v1.StepService/Resolve"));
        }
        assert!(has(&streams, "keyhatch.v1.StepService/Watch"));
        assert!(!has(&streams, "keyhatch.v1.StepService/Resolve"));
        assert!(
            steps.iter().all(|name| name.starts_with(STEP_SERVICE) || name.starts_with(HEALTH))
        );
    }
}
