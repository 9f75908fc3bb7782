"""Flows over shared resources, max-min fair, as a fluid: who has how much, and when each is done.

Each flow has a weight (its connections), a most, and what a byte of it uses of each resource. Only resources
that are asked for more than they have tie flows to each other, so a change is worked out only as far as those
reach: a fabric that is kept just full costs next to nothing.

Where many flows are tied to each other, as where nobody keeps VMs from starting all at once, a change hardly
matters to any of them. There it is worked out only once some per cent of the flows have changed; until then a
new flow has its fair share of the fullest resource on its way, or what it had in the round before; so a full
resource may for that time be taken to carry some per cent more than it does.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from tools.evacuate.work import Demand

if TYPE_CHECKING:  # of the extra fleet, and asked for when it is used
    import simpy

NEARLY = 1 + 1e-9
MANY, DEFERRED_SHARE = 60, 0.06
"""Of so many flows or more that are tied to each other, such a share may change in between."""


class Flow:
    """One migration's bytes, round after round."""

    __slots__ = ("demand", "done", "left", "rate", "rate_before", "resources", "since", "version", "weight")

    def __init__(self, weight: float) -> None:
        self.weight = weight
        self.demand = Demand(0.0, 0.0, ())
        self.resources: frozenset[int] = frozenset()
        self.left = self.rate = self.since = self.rate_before = 0.0
        self.version = 0
        self.done: simpy.Event | None = None


class Network:
    """Flows in a SimPy environment. `watch` is told of a resource's use whenever it changes, if given."""

    def __init__(
        self,
        clock: simpy.Environment,
        capacity: Sequence[float],
        watch: Callable[[int, float, float], None] | None = None,
    ) -> None:
        self._clock = clock
        self._capacity = capacity
        self._watch = watch
        self._on: list[dict[Flow, float]] = [{} for _ in capacity]
        self._asked = [0.0] * len(capacity)
        self._weight = [0.0] * len(capacity)
        self._tight: set[int] = set()
        self._crowded: frozenset[int] = frozenset()  # resources that tied many flows, when last worked out
        self._changes_left = 0.0
        self._ends: list[tuple[float, int, int, Flow]] = []
        self._changed: dict[int, bool] = {}  # since all was worked out; whether it was over-asked then
        self._new: list[Flow] = []
        self._pushed = self._alarm = 0
        self._settling = False
        self._wakes_at = math.inf

    def carry(self, flow: Flow, demand: Demand) -> simpy.Event:
        """The event of the demand's last byte."""
        self._take_off(flow)
        flow.rate_before, flow.rate = flow.rate, 0.0
        flow.demand, flow.left, flow.since = demand, demand.wire_bytes, self._clock.now
        flow.resources = frozenset(resource for resource, _ in demand.uses)
        for resource, amount in demand.uses:
            self._on[resource][flow] = amount
            self._ask(resource, amount * demand.most_bytes_per_second, amount * flow.weight)
        self._new.append(flow)
        flow.done = self._clock.event()
        self._settle_soon()
        return flow.done

    def leave(self, flow: Flow) -> None:
        """It needs nothing any more."""
        self._take_off(flow)
        self._settle_soon()

    def _take_off(self, flow: Flow) -> None:
        flow.version += 1
        self._changes_left -= 1
        for resource, amount in flow.demand.uses:
            if self._on[resource].pop(flow, None) is None:
                continue
            self._ask(resource, -amount * flow.demand.most_bytes_per_second, -amount * flow.weight)

    def _ask(self, resource: int, amount: float, weight: float) -> None:
        """So much more is asked of it, by flows of so much more weight; which may make it over-asked."""
        self._changed.setdefault(resource, resource in self._tight)
        if self._on[resource]:
            self._asked[resource] += amount
            self._weight[resource] += weight
        else:
            self._asked[resource] = self._weight[resource] = 0.0  # and not what rounding left
        if self._asked[resource] > self._capacity[resource] * NEARLY:
            self._tight.add(resource)
        else:
            self._tight.discard(resource)

    # ------------------------------------------------------------- who has how much

    def _settle_soon(self) -> None:
        """After all that happens at this instant."""
        if not self._settling:
            self._settling = True
            self._clock.timeout(0).callbacks.append(self._settle)

    def _settle(self, _: Any) -> None:
        self._settling = False
        deferred = self._can_defer()
        if deferred:
            flows = self._new
            for flow in flows:
                self._give(flow, self._provisional_rate(flow))
        else:
            flows, tight = self._reach()
            for flow, rate in self._shares(flows, tight).items():
                if rate != flow.rate:
                    self._give(flow, rate)
            if len(flows) >= MANY:
                self._crowded, self._changes_left = frozenset(tight), len(flows) * DEFERRED_SHARE
        if self._watch is not None:
            for resource in {*self._changed, *(one for flow in flows for one in flow.resources)}:
                used = sum(amount * flow.rate for flow, amount in self._on[resource].items())
                self._watch(resource, self._clock.now, used)
        if not deferred:
            self._changed.clear()
        self._new.clear()
        self._wake()

    def _can_defer(self) -> bool:
        """Whether all that has changed since all was worked out is among many flows, and hardly matters to
        them: no resource has become free for others meanwhile."""
        if self._changes_left <= 0:
            return False
        touched = self._tight.intersection(self._changed)
        if not touched or not touched <= self._crowded:
            return False
        freed = (one for one, was_tight in self._changed.items() if was_tight and one not in self._tight)
        return not any(self._on[one] for one in freed)

    def _provisional_rate(self, flow: Flow) -> float:
        """What it had in the round before, or its share of the fullest resource on its way."""
        most = flow.demand.most_bytes_per_second
        full = self._tight & flow.resources
        if full and flow.rate_before:
            return min(most, flow.rate_before)
        return min((most, *(self._capacity[one] / self._weight[one] * flow.weight for one in full)))

    def _reach(self) -> tuple[list[Flow], list[int]]:
        """All flows that the changes may touch, and the over-asked resources that tie them."""
        flows: dict[Flow, None] = {flow: None for flow in self._new if flow.done is not None}
        todo = list(self._changed)
        tight = self._tight
        untied = tight.difference(todo)
        seen = [one for one in todo if one in tight]
        while todo:
            on = self._on[todo.pop()]
            flows.update(dict.fromkeys(on))
            if not untied:
                continue
            for flow in on:
                if not untied.isdisjoint(flow.resources):
                    tied = untied & flow.resources
                    untied -= tied
                    seen += tied
                    todo += tied
        return list(flows), seen

    def _shares(self, flows: list[Flow], tight: list[int]) -> dict[Flow, float]:
        """Water filling: the level rises until a flow has its most or a resource is full."""
        found: dict[Flow, float] = {}
        left = {one: self._capacity[one] for one in tight}
        thirst = {one: self._weight[one] for one in tight}
        levels = [(left[one] / thirst[one], one) for one in tight if thirst[one]]
        heapq.heapify(levels)
        by_most = sorted(flows, key=lambda flow: flow.demand.most_bytes_per_second / flow.weight)

        def fix(flow: Flow, rate: float) -> None:
            found[flow] = rate
            for resource, amount in flow.demand.uses:
                if resource in left:
                    left[resource] -= amount * rate
                    thirst[resource] -= amount * flow.weight

        for flow in by_most:
            own = flow.demand.most_bytes_per_second / flow.weight
            while levels and flow not in found:
                level, resource = levels[0]
                now = max(0.0, left[resource]) / thirst[resource] if thirst[resource] > 1e-12 else math.inf
                if now > level * NEARLY:
                    heapq.heapreplace(levels, (now, resource))
                    continue
                if level >= own:
                    break
                heapq.heappop(levels)
                for other in self._on[resource]:
                    if other not in found:
                        fix(other, level * other.weight)
            if flow not in found:
                fix(flow, flow.demand.most_bytes_per_second)
        return found

    def _give(self, flow: Flow, rate: float) -> None:
        now = self._clock.now
        if flow.done is None:
            return
        flow.left = max(0.0, flow.left - flow.rate * (now - flow.since))
        flow.rate, flow.since = rate, now
        flow.version += 1
        if rate > 0:
            self._pushed += 1
            heapq.heappush(self._ends, (now + flow.left / rate, self._pushed, flow.version, flow))

    # ------------------------------------------------------------- when each is done

    def _wake(self) -> None:
        while self._ends and self._ends[0][2] != self._ends[0][3].version:
            heapq.heappop(self._ends)
        if not self._ends or self._ends[0][0] >= self._wakes_at:
            return
        self._wakes_at = max(self._ends[0][0], self._clock.now)
        self._alarm += 1
        number = self._alarm
        self._clock.timeout(self._wakes_at - self._clock.now).callbacks.append(lambda _: self._finish(number))

    def _finish(self, alarm: int) -> None:
        if alarm != self._alarm:
            return  # an earlier one was set since
        now = self._clock.now
        self._wakes_at = math.inf
        while self._ends and self._ends[0][0] <= now * NEARLY + 1e-12:
            _, _, version, flow = heapq.heappop(self._ends)
            if version == flow.version and flow.done is not None:
                flow.version += 1
                flow.left, flow.since = 0.0, now
                done, flow.done = flow.done, None
                done.succeed()
        self._wake()
