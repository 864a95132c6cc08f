//! Bounds that may be explicitly absent.

/// The entries that something must lie within, or the statement that it is not bounded.
///
/// An empty list on the wire means that there is no bound. In here it does not: `Within` nothing admits nothing, so that a
/// bound which is lost on the way closes instead of opening.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Bounds<T> {
    /// Anything is admitted.
    Unbounded,
    /// Only what one of these admits.
    Within(Vec<T>),
}

impl<T> Bounds<T> {
    /// The bounds of a request's list: none where it is empty.
    pub fn from_list(entries: Vec<T>) -> Self {
        if entries.is_empty() { Self::Unbounded } else { Self::Within(entries) }
    }

    /// The entries; none where there is no bound.
    pub fn entries(&self) -> &[T] {
        match self {
            Self::Unbounded => &[],
            Self::Within(entries) => entries,
        }
    }

    /// The list that responses show: an empty one where there is no bound.
    pub fn into_list(self) -> Vec<T> {
        match self {
            Self::Unbounded => vec![],
            Self::Within(entries) => entries,
        }
    }

    /// Whether something lies within the bounds, if `admits` says so of one entry.
    pub fn admit(&self, admits: impl Fn(&T) -> bool) -> bool {
        match self {
            Self::Unbounded => true,
            Self::Within(entries) => entries.iter().any(admits),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_list_is_no_bound_and_an_empty_bound_admits_nothing() {
        assert_eq!(Bounds::<u8>::from_list(vec![]), Bounds::Unbounded);
        assert_eq!(Bounds::from_list(vec![1]), Bounds::Within(vec![1]));
        let admits = |bounds: &Bounds<u8>, wanted: u8| bounds.admit(|entry| *entry == wanted);
        assert!(admits(&Bounds::Unbounded, 1));
        assert!(admits(&Bounds::Within(vec![1, 2]), 2) && !admits(&Bounds::Within(vec![1, 2]), 3));
        assert!(!admits(&Bounds::Within(vec![]), 1));
    }

    #[test]
    fn a_list_comes_back_as_it_went_in() {
        for list in [vec![], vec![3, 1]] {
            let bounds = Bounds::from_list(list.clone());
            assert_eq!(bounds.entries(), list);
            assert_eq!(bounds.into_list(), list);
        }
        assert!(Bounds::<u8>::Within(vec![]).into_list().is_empty());
    }
}
