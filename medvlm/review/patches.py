"""What differs between two reviews: kept in the audit log, and what undo is made of.

A patch is a JSON merge patch (RFC 7396): what it names is set, what it gives as null is taken away,
all else stays. Lists cannot be merged, so sentences go by their ids, beside their order.
"""

from __future__ import annotations

from typing import Any

from medvlm.review.records import Review

Patch = dict[str, Any]


def difference(before: Review, after: Review) -> tuple[Patch, Patch]:
    """The patches that lead back from `after` to `before`, and there again."""
    old, new = _by_id(before), _by_id(after)
    return _towards(new, old), _towards(old, new)


def patched(review: Review, patch: Patch) -> Review:
    """The review with the patch applied; what the patch does not know of stays out of the way."""
    content = _merged(_by_id(review), patch)
    order = content.pop("order")
    for part in ("sentences", "withheld"):
        content[part] = [content[part][one] for one in order.get(part, ())]
    for part in ("displayed", "acknowledged"):
        content[part] = list(content[part])
    known = {key: content[key] for key in Review.model_fields if key in content}
    return Review.model_validate(known)


def as_json(review: Review) -> dict[str, Any]:
    """The review as JSON that is the same for equal reviews, as sets are not."""
    content = review.model_dump(mode="json")
    for part in ("displayed", "acknowledged"):
        content[part] = sorted(content[part])
    return content


def _by_id(review: Review) -> dict[str, Any]:
    content = as_json(review)
    order = {}
    for part in ("sentences", "withheld"):
        order[part] = [one["id"] for one in content[part]]
        content[part] = {one["id"]: one for one in content[part]}
    for part in ("displayed", "acknowledged"):
        content[part] = dict.fromkeys(content[part], True)
    return {**content, "order": order}


def _towards(source: Any, target: Any) -> Any:
    """What must be set in `source` to make it `target`."""
    if not (isinstance(source, dict) and isinstance(target, dict)):
        return target
    return {
        key: _towards(source.get(key), target.get(key))
        for key in sorted(source.keys() | target.keys())
        if source.get(key) != target.get(key)
    }


def _merged(source: Any, patch: Any) -> Any:
    if not isinstance(patch, dict):
        return patch
    merged = dict(source) if isinstance(source, dict) else {}
    for key, value in patch.items():
        if value is None:
            merged.pop(key, None)
        else:
            merged[key] = _merged(merged.get(key), value)
    return merged
