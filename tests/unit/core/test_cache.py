"""What a cache forgets by itself."""

from __future__ import annotations

from services.core.cache import Cache


def test_answers_expire_and_the_least_used_leave_first() -> None:
    now = 0.0
    cache: Cache[str, int] = Cache(2, 10, lambda: now)
    cache.put("a", 1, cache.age)
    cache.put("b", 2, cache.age, ttl_s=5)
    assert cache.peek("a") == 1
    cache.put("c", 3, cache.age)
    assert (cache.peek("a"), cache.peek("b"), cache.peek("c")) == (1, None, 3)
    cache.put("b", 2, cache.age, ttl_s=5)
    now = 5.0
    assert (cache.peek("b"), cache.peek("c")) == (None, 3)
    now = 10.0
    assert cache.peek("c") is None
    assert len(cache) == 0


def test_an_answer_older_than_a_change_is_not_kept() -> None:
    cache: Cache[str, int] = Cache(2, 10)
    age = cache.age
    cache.put("a", 1, age)
    cache.forget(lambda key, value: value == 2)
    cache.put("b", 2, age)
    assert (cache.peek("a"), cache.peek("b")) == (1, None)
