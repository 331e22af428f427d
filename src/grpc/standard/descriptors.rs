//! What reflection knows: the files that the messages are generated from, and what stands
//! in which of them.

use std::collections::HashMap;
use std::sync::LazyLock;

use prost_reflect::{DescriptorPool, FileDescriptor};

/// A `FileDescriptorSet`, made by `build.rs`.
const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/descriptors.bin"));

/// Made when somebody asks for it first.
pub(super) static DESCRIPTORS_OF_ALL: LazyLock<Descriptors> = LazyLock::new(|| {
    // They are part of the program: a test looks that they are whole.
    Descriptors::of(DescriptorPool::decode(DESCRIPTORS).unwrap_or_default())
});

/// Files, and what they declare.
#[derive(Debug)]
pub(super) struct Descriptors {
    pool: DescriptorPool,
    /// By full name.
    declared_in: HashMap<String, FileDescriptor>,
}

impl Descriptors {
    fn of(pool: DescriptorPool) -> Self {
        let mut declared_in = HashMap::new();
        let mut declare = |name: &str, file: FileDescriptor| {
            declared_in.insert(name.to_owned(), file);
        };
        for message in pool.all_messages() {
            let file = message.parent_file();
            declare(message.full_name(), file.clone());
            for field in message.fields() {
                declare(field.full_name(), file.clone());
            }
            for oneof in message.oneofs() {
                declare(oneof.full_name(), file.clone());
            }
        }
        for of_enum in pool.all_enums() {
            declare(of_enum.full_name(), of_enum.parent_file());
            for value in of_enum.values() {
                declare(value.full_name(), of_enum.parent_file());
            }
        }
        for extension in pool.all_extensions() {
            declare(extension.full_name(), extension.parent_file());
        }
        for service in pool.services() {
            declare(service.full_name(), service.parent_file());
            for method in service.methods() {
                declare(method.full_name(), service.parent_file());
            }
        }
        Descriptors { pool, declared_in }
    }

    /// The file of this name, and all that it imports.
    pub(super) fn file(&self, name: &str) -> Option<Vec<Vec<u8>>> {
        self.pool
            .get_file_by_name(name)
            .map(|file| with_imports(&file))
    }

    /// The file that declares this symbol, and all that it imports.
    pub(super) fn file_of_symbol(&self, name: &str) -> Option<Vec<Vec<u8>>> {
        self.declared_in.get(name).map(with_imports)
    }

    /// The file that declares the extension of a message with this number, and all that it
    /// imports.
    pub(super) fn file_of_extension(&self, message: &str, number: i32) -> Option<Vec<Vec<u8>>> {
        let message = self.pool.get_message_by_name(message)?;
        let extension = message.get_extension(u32::try_from(number).ok()?)?;
        Some(with_imports(&extension.parent_file()))
    }

    /// The numbers of all extensions of a message.
    pub(super) fn extension_numbers(&self, message: &str) -> Option<Vec<i32>> {
        let message = self.pool.get_message_by_name(message)?;
        let numbers = message.extensions().map(|extension| extension.number());
        Some(
            numbers
                .filter_map(|number| number.try_into().ok())
                .collect(),
        )
    }
}

/// A file and all that it imports, directly or not, each once and encoded.
fn with_imports(file: &FileDescriptor) -> Vec<Vec<u8>> {
    let mut files = vec![file.clone()];
    let mut next = 0;
    while let Some(file) = files.get(next) {
        let imports: Vec<_> = file.dependencies().collect();
        for import in imports {
            if !files.contains(&import) {
                files.push(import);
            }
        }
        next += 1;
    }
    files.iter().map(FileDescriptor::encode_to_vec).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::grpc::standard::SERVICES;

    #[test]
    fn all_services_are_described() {
        let all = &*DESCRIPTORS_OF_ALL;
        let own = [
            "galaxy.backend.push.v1.Push",
            "galaxy.push.gateway.v1.Gateway",
            "galaxy.push.publisher.v1.Publisher",
        ];
        for service in own.into_iter().chain(SERVICES) {
            assert!(all.file_of_symbol(service).is_some(), "{service}");
        }
    }

    #[test]
    fn a_file_comes_first_and_each_import_once() {
        let all = &*DESCRIPTORS_OF_ALL;
        let files = all
            .file("galaxy/push/publisher/v1/publisher.proto")
            .unwrap();
        let names = ["publisher.proto", "push.proto"];
        assert_eq!(files.len(), names.len());
        for (file, name) in files.iter().zip(names) {
            let text = String::from_utf8_lossy(file);
            assert!(
                text.lines().take(3).any(|line| line.contains(name)),
                "{text}"
            );
        }
    }

    #[test]
    fn every_kind_of_symbol_is_found() {
        let all = &*DESCRIPTORS_OF_ALL;
        for symbol in [
            "galaxy.backend.push.v1.Push.SubscribePush",
            "galaxy.backend.push.v1.PushEvent",
            "galaxy.backend.push.v1.PushEvent.cursor",
            "galaxy.backend.push.v1.PushEvent.kind",
            "grpc.health.v1.HealthListResponse.StatusesEntry",
            "grpc.health.v1.HealthCheckResponse.ServingStatus",
            // An enum's values stand beside it.
            "grpc.health.v1.HealthCheckResponse.SERVING",
        ] {
            assert!(all.file_of_symbol(symbol).is_some(), "{symbol}");
        }
        for other in ["", "galaxy", ".galaxy.backend.push.v1.Push", "x.Y"] {
            assert!(all.file_of_symbol(other).is_none(), "{other}");
        }
    }

    #[test]
    fn messages_without_extensions_have_none() {
        let all = &*DESCRIPTORS_OF_ALL;
        let message = "galaxy.backend.push.v1.PushEvent";
        assert_eq!(all.extension_numbers(message), Some(vec![]));
        assert_eq!(all.extension_numbers("x.Y"), None);
        for number in [-1, 0, 1, i32::MAX] {
            assert_eq!(all.file_of_extension(message, number), None);
        }
    }
}
