"""The pure parts of the Kafka driver: tracker, committed map, partition, delay lanes, space."""

from __future__ import annotations

import base64
import itertools
import random
import time
import zlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from nova.brokers.kafka import offset_map
from nova.brokers.kafka.caution import CAREFUL_HELD, CAREFUL_MOST, Caution
from nova.brokers.kafka.delay_lanes import DEFAULT_LANES, DelayLanes
from nova.brokers.kafka.names import Names, class_of
from nova.brokers.kafka.offset_map import OffsetMap
from nova.brokers.kafka.partition import CALM_SECONDS, CAREFUL_DEATHS, SUSPECT_DEATHS, KafkaDelivery, Partition
from nova.brokers.kafka.reclaim import bounds
from nova.brokers.kafka.registry import Registration
from nova.brokers.kafka.tracker import OffsetTracker

YEAR_MS = 365 * 86_400_000


class TrackerModel(RuleBasedStateMachine):
    """A tracker beside the plain set of unfinished offsets, through gaps, completions in any order and takeovers."""

    @initialize(base=st.integers(0, 10_000))
    def begin(self, base: int) -> None:
        self.tracker = OffsetTracker(base)
        self.highest = base - 1
        self.unfinished: set[int] = set()
        self.finished: set[int] = set()

    @rule(gap=st.integers(0, 5), count=st.integers(1, 30))
    def fetch(self, gap: int, count: int) -> None:
        start = self.highest + 1 + gap
        for offset in range(start, start + count):
            if offset in self.finished:
                assert not self.tracker.fetch(offset)
            else:
                assert self.tracker.fetch(offset)
                self.unfinished.add(offset)
        self.highest = start + count - 1

    @rule(data=st.data())
    def complete(self, data: st.DataObject) -> None:
        if not self.unfinished:
            return
        chosen = data.draw(st.sets(st.sampled_from(sorted(self.unfinished)), max_size=20))
        self.tracker.complete(chosen)
        self.unfinished -= chosen
        self.finished |= chosen

    @rule()
    def take_over(self) -> None:
        """A successor reads the committed text and fetches from the base again."""
        text, whole = offset_map.encode(
            OffsetMap(self.tracker.base, self.tracker.next, self.tracker.runs(), clean=False)
        )
        assert whole
        left = offset_map.decode(self.tracker.base, text)
        assert left is not None
        self.tracker = OffsetTracker(left.base, left.done())
        again = {offset for offset in range(left.base, self.highest + 1) if self.tracker.fetch(offset)}
        assert self.unfinished <= again, "a successor must see whatever is not finished"
        assert not again & self.finished, "a successor must not see again what is finished"
        self.unfinished = again  # gaps that were below an unfinished offset are known only as finished

    @invariant()
    def the_base_never_passes_an_unfinished_offset(self) -> None:
        if hasattr(self, "tracker"):
            assert self.tracker.base <= min(self.unfinished, default=self.highest + 1)

    @invariant()
    def nothing_finished_is_held_back_without_reason(self) -> None:
        if hasattr(self, "tracker") and not self.unfinished:
            assert self.tracker.base == self.tracker.next


TestTracker = TrackerModel.TestCase


@st.composite
def maps(draw: st.DrawFn) -> OffsetMap:
    base = draw(st.integers(0, 1 << 40))
    pairs = draw(st.lists(st.tuples(st.integers(1, 300), st.integers(1, 300)), max_size=60))
    runs = [length for pair in pairs for length in pair]
    handed = base + sum(runs) + draw(st.integers(0, 5000))
    charges = draw(st.dictionaries(st.integers(base, base + 5000), st.integers(1, 9), max_size=3))
    deaths, owner = draw(st.integers(0, 50)), draw(st.integers(0, (1 << 28) - 1))
    return OffsetMap(base, handed, runs, draw(st.booleans()), deaths, charges, owner)


@given(maps())
def test_a_map_that_is_written_and_read_is_the_same(found: OffsetMap) -> None:
    text, whole = offset_map.encode(found)
    assert whole
    assert len(text) <= offset_map.LIMIT
    read = offset_map.decode(found.base, text)
    assert read is not None
    assert (read.handed, read.clean, read.deaths, dict(read.charges)) == (
        found.handed, found.clean, found.deaths, dict(found.charges)
    )  # fmt: skip
    assert list(read.done()) == list(found.done())


@given(maps(), st.integers(20, 300))
def test_a_map_that_is_too_long_forgets_finished_ones_only(found: OffsetMap, limit: int) -> None:
    found = OffsetMap(found.base, found.handed, found.runs, found.clean, found.deaths)
    text, whole = offset_map.encode(found, limit)
    assert len(text) <= limit
    read = offset_map.decode(found.base, text)
    assert read is not None
    done = list(found.done())
    kept = list(read.done())
    assert kept == done[: len(kept)]
    assert whole == (kept == done)


@given(st.text(max_size=200) | st.none())
def test_a_text_nobody_wrote_is_an_empty_map_or_none(text: str | None) -> None:
    read = offset_map.decode(7, text)
    assert read is None or read.base == 7


@pytest.mark.parametrize("text", ["", None, "9abc", "1", "1z", "1zAAAA", "1!!!", "1" + "~" * 50, "\x00"])
def test_broken_texts_are_none(text: str | None) -> None:
    assert offset_map.decode(7, text) is None


def test_offsets_left_out_above_an_unfinished_one_are_finished() -> None:
    tracker = OffsetTracker(0)
    for offset in (0, 5, 6, 9):
        assert tracker.fetch(offset)
    tracker.complete([5, 6, 9])
    assert tracker.base == 0
    assert tracker.done == {1, 2, 3, 4, 5, 6, 7, 8, 9}
    tracker.complete([0])
    assert tracker.base == tracker.next == 10


def test_a_text_that_would_grow_without_end_is_refused() -> None:
    bomb = "1z" + base64.b85encode(zlib.compress(bytes(50 << 20), 9)[:2500]).decode()
    begin = time.perf_counter()
    offset_map.decode(0, bomb)
    assert time.perf_counter() - begin < 1.0, "milliseconds; a second is a wide margin"


def test_the_sizes_the_fences_are_set_for() -> None:
    chance = random.Random(1)
    stuck = OffsetTracker(0)
    for offset in range(50_000):
        stuck.fetch(offset)
    stuck.complete(range(1, 50_000))
    assert len(offset_map.encode(OffsetMap(0, 50_000, stuck.runs(), clean=False))[0]) < 20
    for running, span, most in ((256, 100_000, 700), (1000, 100_000, 2000), (2500, 50_000, 3500)):
        tracker = OffsetTracker(0)
        for offset in range(span):
            tracker.fetch(offset)
        tracker.complete(set(range(span)) - set(chance.sample(range(span), running)))
        text, whole = offset_map.encode(OffsetMap(tracker.base, span, tracker.runs(), clean=False))
        assert whole
        assert len(text) < most


# --- partition: who is suspect


def delivery(partition: Partition, offset: int, deaths: int = 0) -> KafkaDelivery:
    return KafkaDelivery("t", b"x", {}, partition=partition, offset=offset, deaths=deaths)


_owners = itertools.count(1)


def test_careful_lending_begins_small_and_doubles_after_each_round_that_nobody_died_of() -> None:
    caution = Caution()
    lent = []
    for _ in range(7):
        most = caution.room(0)
        lent.append(most)
        assert caution.room(most) == 0
        assert caution.room(most - 1) == 1, "as long as one of a round runs, it may be the killer: no larger round"
    assert lent == [32, 64, 128, 256, 512, 512, 512]
    assert caution.room(0) == caution.room(0) == CAREFUL_MOST, "waiting proves nothing"
    caution.begin_again()
    assert caution.room(0) == CAREFUL_HELD
    caution.room(CAREFUL_HELD)
    caution.begin_again()
    assert caution.room(0) == CAREFUL_HELD, "what left with its partition has not ended"


def owner(text: str | None, base: int, *, charged: bool = False, who: int | None = None) -> Partition:
    left = offset_map.decode(base, text) if text is not None else OffsetMap(base, base)
    who = next(_owners) if who is None else who
    return Partition("t", 0, "t", left, charged=charged, watchful=True, owner=who)


def lend(partition: Partition, *offsets: int) -> list[KafkaDelivery]:
    lent = []
    for offset in sorted(offsets):
        assert partition.fetch(offset)
        lent.append(delivery(partition, offset))
    for one in lent:
        partition.lend([one])
    return lent


def test_only_the_third_unclean_end_makes_suspects_and_only_of_what_was_handed_out() -> None:
    partition = owner(None, 100)
    for death in range(SUSPECT_DEATHS):
        lent = lend(partition, 100, 101, 102) if death == 0 else lend(partition, 100)
        if death:
            partition.fetch(101)
            lent += lend(partition, 102)
        assert not any(one.suspect for one in lent), death
        assert partition.needs_mark
        partition.finish([101])
        partition = owner(partition.text(clean=False), 100)
    lent = lend(partition, 100)
    assert not partition.fetch(101), "finished by a predecessor"
    lent += lend(partition, 102, 103, 104)
    assert [one.suspect for one in lent] == [True, True, False, False]


def test_an_owner_that_loses_its_partition_and_gets_it_back_has_not_died() -> None:
    """An outage loses partitions too; in one of hours a good task would be taken for a killer."""
    partition = owner(None, 0, who=1)
    for _ in range(2 * SUSPECT_DEATHS):
        assert not any(one.suspect for one in lend(partition, 0, 1))
        partition = owner(partition.text(clean=False), 0, who=1)
        assert not partition.is_careful
    charged = owner(None, 0, charged=True, who=1)
    for _ in range(2 * SUSPECT_DEATHS):
        (one,) = lend(charged, 0)
        assert one.charges == 1
        charged = owner(charged.text(clean=False), 0, charged=True, who=1)
        charged.forgive([0])


def test_a_clean_end_forgets_every_death() -> None:
    partition = owner(owner(owner(None, 0).text(clean=False), 0).text(clean=False), 0)
    lend(partition, 0, 1)
    heir = owner(partition.text(clean=True), 0)
    assert not heir.is_careful
    lend(heir, 0, 1)
    assert not any(one.suspect for one in lend(owner(heir.text(clean=False), 0), 0, 1))


def test_a_partition_calms_down_once_what_was_exposed_is_finished() -> None:
    partition = owner(None, 0)
    for _ in range(CAREFUL_DEATHS):
        lend(partition, 0, 1)
        partition = owner(partition.text(clean=False), 0)
    assert partition.is_careful
    for one in lend(partition, 0, 1):
        partition.settle([one])
    partition.calm_down(CALM_SECONDS)
    assert partition.is_careful, "not finished yet"
    partition.finish([0, 1])
    partition.calm_down(CALM_SECONDS / 2)
    assert partition.is_careful, "what kills may come right behind"
    partition.calm_down(CALM_SECONDS)
    assert not partition.is_careful


def test_a_task_that_outlived_nobody_in_escrow_is_suspect_after_three_holders_died() -> None:
    partition = owner(None, 0)
    partition.fetch(0)
    one = delivery(partition, 0, deaths=SUSPECT_DEATHS)
    partition.lend([one])
    assert one.suspect


def test_charges_count_unclean_ends_and_are_taken_back_by_clean_ones() -> None:
    partition = owner(None, 0, charged=True)
    (one,) = lend(partition, 0)
    assert one.charges == 1
    partition = owner(partition.text(clean=False), 0, charged=True)
    (one,) = lend(partition, 0)
    assert one.charges == 2
    partition.take_back_charges()
    partition = owner(partition.text(clean=True), 0, charged=True)
    (one,) = lend(partition, 0)
    assert one.charges == 2
    partition.settle([one])
    partition.finish([0])
    assert partition.charges == {}


def test_what_has_not_started_is_dropped_and_what_runs_is_kept() -> None:
    partition = owner(None, 0)
    runs, waits = lend(partition, 0, 1)
    runs.started = True
    assert partition.drop_unstarted() == [runs]
    assert waits.lost
    assert not runs.lost
    partition.lose()
    assert runs.lost
    assert not partition.settle([runs])


# --- delay lanes

lanes_strategy = st.builds(DelayLanes, st.integers(1, 64), st.integers(1000, 30 * 86_400_000))


@given(lanes_strategy, st.integers(1, 20 * YEAR_MS), st.randoms(use_true_random=False))
@settings(max_examples=200)
def test_the_sum_of_holds_never_exceeds_the_delay_and_the_rest_is_near(
    lanes: DelayLanes, delay_ms: int, chance: random.Random
) -> None:
    remaining, held, hops = delay_ms, 0, 0
    while (lane := lanes.pick(remaining)) is not None:
        assert 0 <= lane.index < lanes.lanes_of(lane.level)
        assert lane.hold_ms <= remaining, "never early"
        held += lane.hold_ms
        late = min(chance.randrange(300), remaining - lane.hold_ms)
        remaining -= lane.hold_ms + late
        held += late
        hops += 1
        assert hops < 30_000
    assert held + remaining == delay_ms
    assert remaining < lanes.unit_ms


@given(st.integers(1, 10 * YEAR_MS))
def test_ten_years_take_at_most_eight_hops_of_the_default_lanes(delay_ms: int) -> None:
    hops = 0
    while (lane := DEFAULT_LANES.pick(delay_ms)) is not None:
        delay_ms -= lane.hold_ms
        hops += 1
    assert hops <= 8
    assert delay_ms < 16_000


def test_every_record_of_a_lane_is_held_equally_long() -> None:
    holds: dict[tuple[int, int], set[int]] = {}
    for remaining in range(1000, 40 * 86_400_000, 977_777):
        lane = DelayLanes(24, 3_600_000).pick(remaining)
        if lane is not None:
            holds.setdefault((lane.level, lane.index), set()).add(lane.hold_ms)
    assert len(holds) > 24
    assert {len(found) for found in holds.values()} == {1}


# --- names and space


def test_classes_have_consumer_groups_of_their_own() -> None:
    names = Names("SHOP")
    assert [
        names.consumer_group("billing", f"SHOP_PRIORITY_{rank}") for rank in ("HIGH", "NORMAL", "LOW")
    ] == ["SHOP.billing.high", "SHOP.billing.normal", "SHOP.billing.low"]  # fmt: skip
    assert class_of("SHOP-imports") == "normal"
    assert class_of("SHOP-imports_PRIORITY_LOW") == "low"
    assert class_of("SHOP-imports_QUARANTINE") == "quarantine"
    assert names.level_of("SHOP_DELAY_3") == 3
    assert names.level_of("SHOP-a_DELAY_3") is None
    assert not names.owns("SHOPPING_TASKS")


def test_space_is_given_back_up_to_the_slowest_registered_group() -> None:
    names = Names("P")
    place, other, lane = ("P_PRIORITY_NORMAL", 0), ("P_PRIORITY_NORMAL", 1), ("P_DELAY_0", 2)
    a = Registration("a", "P_PRIORITY_NORMAL", {}, 0, 0)
    b = Registration("b", "P_PRIORITY_NORMAL", {0: 40, 1: 70}, 5, 1)
    bases = {("P.a.normal", place): 100, ("P.a.normal", other): 90, ("P.b.normal", other): 80, ("P.delay", lane): 9}
    assert bounds(names, [a, b], [place, other, lane], bases) == {place: 40, other: 80, lane: 9}
    assert bounds(names, [a], [place], {}) == {place: 0}, "a registered group without a commit holds everything"
    assert bounds(names, [], [place], bases) == {}, "nobody is registered: kept for the first"
