//! The names of services and methods in an encoded `FileDescriptorSet`. Only the fields that name
//! them are declared; prost skips the rest.

use std::collections::HashMap;

use prost::Message as _;

/// The methods of the server, so that metrics are labelled with no name that a caller made up.
pub(super) struct Descriptors {
    services: Vec<String>,
    methods: HashMap<String, &'static str>,
}

impl Descriptors {
    /// Meant to be called once in a process: the methods' names are kept for its life.
    pub(super) fn decode(encoded: &[u8]) -> Result<Self, prost::DecodeError> {
        // "" is the server as a whole.
        let mut services = vec![String::new()];
        let mut methods = HashMap::new();
        let health = FileSet::decode(tonic_health::pb::FILE_DESCRIPTOR_SET)?;
        for file in FileSet::decode(encoded)?
            .files
            .into_iter()
            .chain(health.files)
        {
            for service in file.services {
                let name = format!("{}.{}", file.package, service.name);
                for method in service.methods {
                    let path = format!("/{name}/{}", method.name);
                    methods.insert(path.clone(), &*path.leak());
                }
                services.push(name);
            }
        }
        Ok(Self { services, methods })
    }

    pub(super) fn services(&self) -> impl Iterator<Item = &str> {
        self.services.iter().map(String::as_str)
    }

    /// The services' own methods, by their names: `orders.v1.OrderService/CreateOrder`.
    pub(super) fn operations(&self) -> impl Iterator<Item = &str> {
        let paths = self
            .methods
            .keys()
            .filter_map(|path| path.strip_prefix('/'));
        paths.filter(|name| !name.starts_with("grpc."))
    }

    /// The methods by their paths: `/orders.v1.OrderService/CreateOrder`.
    pub(super) fn methods(&self) -> HashMap<String, &'static str> {
        self.methods.clone()
    }
}

#[derive(Clone, PartialEq, prost::Message)]
struct FileSet {
    #[prost(message, repeated, tag = "1")]
    files: Vec<File>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct File {
    #[prost(string, tag = "2")]
    package: String,
    #[prost(message, repeated, tag = "6")]
    services: Vec<Service>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Service {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(message, repeated, tag = "2")]
    methods: Vec<Method>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Method {
    #[prost(string, tag = "1")]
    name: String,
}
