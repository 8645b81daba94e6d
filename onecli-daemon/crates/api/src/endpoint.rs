//! One operation of the API: method, path, and who may use it.

/// The method of an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verb {
    /// `GET`: changes nothing.
    Get,
    /// `POST`.
    Post,
    /// `PUT`.
    Put,
    /// `DELETE`.
    Delete,
}

impl Verb {
    /// Returns the method as it is on the wire.
    pub fn as_str(self) -> &'static str {
        match self {
            Verb::Get => "GET",
            Verb::Post => "POST",
            Verb::Put => "PUT",
            Verb::Delete => "DELETE",
        }
    }
}

/// Who may use an operation. Each case includes the cases below it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Members of group `onecli-audit`.
    Read,
    /// Members of group `onecli`.
    Administer,
    /// Root, and the daemon's own user. These operations could reveal a stored value.
    Root,
}

/// One operation.
#[derive(Debug, Clone, Copy)]
pub struct Endpoint {
    /// The method.
    pub verb: Verb,
    /// The path; `{agent}` stands for one segment.
    pub path: &'static str,
    /// Who may use it.
    pub access: Access,
    /// Whether a permitted runner may use it too, for agents that the runner may start.
    pub runners: bool,
}

impl Endpoint {
    const fn new(verb: Verb, path: &'static str, access: Access) -> Endpoint {
        Endpoint { verb, path, access, runners: false }
    }

    /// A `GET` of `path`.
    pub(crate) const fn get(path: &'static str, access: Access) -> Endpoint {
        Endpoint::new(Verb::Get, path, access)
    }

    /// A `POST` to `path`.
    pub(crate) const fn post(path: &'static str, access: Access) -> Endpoint {
        Endpoint::new(Verb::Post, path, access)
    }

    /// A `PUT` of `path`.
    pub(crate) const fn put(path: &'static str, access: Access) -> Endpoint {
        Endpoint::new(Verb::Put, path, access)
    }

    /// A `DELETE` of `path`.
    pub(crate) const fn delete(path: &'static str, access: Access) -> Endpoint {
        Endpoint::new(Verb::Delete, path, access)
    }

    /// The same operation, also for permitted runners.
    pub(crate) const fn for_runners(self) -> Endpoint {
        Endpoint { runners: true, ..self }
    }
}
