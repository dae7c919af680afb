"""The pictures that the language model reads together, and the way back from each of its tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from medvlm.draft.look import Seen
from medvlm.errors import UsageError
from medvlm.image.geometry import Box
from medvlm.image.places import Place
from medvlm.image.polygon import Polygon
from medvlm.model.checkpoint import Checkpoint
from medvlm.model.language import Turn
from medvlm.model.pictures import Picture, Sight, TokenSource, together
from medvlm.records import Region


@dataclass(frozen=True)
class Trunk:
    """Pictures before a question.

    Attributes:
        sight: one row of them.
        sources: of each visual token, in the order of the prompt.
        places: of each picture; of a volume, one for each of its planes, the first slice first.
    """

    sight: Sight = field(repr=False)
    sources: tuple[TokenSource, ...] = field(repr=False)
    places: tuple[tuple[Place, ...], ...] = field(repr=False)

    def token_region(self, token: int) -> Region | None:
        """The source pixels of a visual token; None for a token that saw nothing but padding.

        A token of a volume is placed on the plane in the middle of its slices.
        """
        source = self.sources[token]
        cell, planes = source.cell, self.places[source.picture]
        number = min(int((cell.first + cell.last) / 2 * len(planes)), len(planes) - 1)
        size = planes[number].transform.size
        corners = (cell.left * size, cell.top * size, cell.right * size, cell.bottom * size)
        return planes[number].region(Box.from_corners(*corners))

    def best_regions(self, scores: Sequence[float], most: int = 3) -> list[tuple[Region, float]]:
        """Where the highest of a score per visual token (an attention, say) lie, the highest first.

        Raises ValueError unless there is a score for each token.
        """
        if len(scores) != len(self.sources):
            raise ValueError(f"{len(scores)} scores for {len(self.sources)} visual tokens")
        found: list[tuple[Region, float]] = []
        for token in sorted(range(len(scores)), key=lambda i: -scores[i]):
            if len(found) < most and (region := self.token_region(token)) is not None:
                found.append((region, float(scores[token])))
        return found

    def turn(self, question: str, region: Region | None = None) -> Turn:
        """A question, over a region of one of the pictures if one is given.

        Raises UsageError if no picture shows the region.
        """
        if region is None:
            return Turn(question)
        box = Box(region.x, region.y, region.width, region.height)
        for picture, planes in enumerate(self.places):
            shown = [i for i, place in enumerate(planes) if place.shows(region)]
            if shown:
                grid = planes[shown[0]].to_grid(box)
                slices = shown[0] / len(planes), (shown[-1] + 1) / len(planes)
                corners = (grid.x, grid.y, grid.right, grid.bottom)
                outline = None
                if region.polygon is not None:
                    drawn = Polygon(tuple(region.polygon))
                    outline = drawn.moved(planes[shown[0]].transform.point_to_grid)
                return Turn(question, "", corners, picture, slices, outline)
        raise UsageError(
            "the region lies on none of the pictures that are looked at",
            remedy="give the SOPInstanceUID and frame of one of them, and pixels inside it",
        )


def read_together(
    checkpoint: Checkpoint, views: Sequence[Seen], prior: Sequence[Seen] = ()
) -> Trunk:
    """What the language model reads of a study: views, each followed by its tiles, then a prior.

    The checkpoint says how many views it was trained with and whether it knows priors: of more
    `views` the first are taken (`best_views` puts them in order), and a prior, of which the best
    view stands for all, is left out where it was never trained on one.
    """
    settings = checkpoint.config.model.pictures
    shown: list[tuple[Sight, Picture, Place]] = []
    for number, seen in enumerate(views[: settings.views]):
        shown.append((seen.sight, Picture("view", number), seen.place))
        shown += [
            (tile.sight, Picture("tile", number, tile.number), tile.place) for tile in seen.tiles
        ]
    if prior and settings.prior:
        earlier = best_views(prior, 1)[0]
        shown.append((earlier.sight, Picture("prior"), earlier.place))
    if len(shown) == 1:
        sight = shown[0][0]
    else:
        sight = together([(own, picture) for own, picture, _ in shown])
    places = tuple((place,) for _, _, place in shown)
    return Trunk(sight, checkpoint.model.sources(sight), places)


def best_views(views: Sequence[Seen], most: int) -> list[Seen]:
    """The views that look most like what the model was trained on, the best first, at most `most`.

    Of views that look alike the earlier comes first.
    """
    return sorted(views, key=lambda seen: -seen.attributes["frontal_chest"])[:most]
