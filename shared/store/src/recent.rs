//! Hints that a process keeps between requests. Nothing of it decides: it says where to look first.

use std::hash::Hash;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, PoisonError};

use lru::LruCache;

/// The capacity of each cache.
const CAPACITY: NonZeroUsize = NonZeroUsize::new(10_000).unwrap();

/// The values that were used last, by their keys. Clones share them.
#[derive(Debug)]
pub(crate) struct Recent<K: Eq + Hash, V>(Arc<Mutex<LruCache<K, V>>>);

impl<K: Eq + Hash, V: Clone> Recent<K, V> {
    /// A cache for this number of values.
    pub(crate) fn of(capacity: NonZeroUsize) -> Self {
        Self(Arc::new(Mutex::new(LruCache::new(capacity))))
    }

    pub(crate) fn get(&self, key: &K) -> Option<V> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(key).cloned()
    }

    pub(crate) fn put(&self, key: K, value: V) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).put(key, value);
    }

    pub(crate) fn forget(&self, key: &K) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop(key);
    }
}

impl<K: Eq + Hash, V> Default for Recent<K, V> {
    fn default() -> Self {
        Self(Arc::new(Mutex::new(LruCache::new(CAPACITY))))
    }
}

impl<K: Eq + Hash, V> Clone for Recent<K, V> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}
