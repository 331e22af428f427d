"""What was promised, held against what browsers have seen and gateways have written."""

import json
import re

# A line of the example gateway's log, where a stream began.
SUBSCRIBED = re.compile(
    r"subscribed resume=(?P<resume>\S+) reason=(?P<reason>\S+)(?: revocations=(?P<revocations>\S+))?"
)


def percentile(values, share):
    values = sorted(values)
    return values[min(len(values) - 1, int(len(values) * share))] if values else float("nan")


class Verdict:
    def __init__(self, publisher, browsers, gateways, revocations, faults):
        self._published_at = publisher.published_at
        self._sessions = [session for browser in browsers for session in browser.sessions]
        self._gateways = gateways
        # Each invalidation's number, with its user, and its session or "".
        self._revocations = revocations
        self._by_user = {}
        for number, user, name in revocations:
            self._by_user.setdefault(user, []).append((number, name))
        self._faults = faults
        self.violations = []
        self.deliveries = []
        self.enforcements = []
        self.gaps = {}
        for session in self._sessions:
            self._look_at(session)
        for part in gateways:
            self._read_log(part)

        self._look_for_what_has_to_happen()

    def _look_for_what_has_to_happen(self):
        """A run in which nothing was at stake shows nothing."""
        laps = sum(count for kind, count in self.gaps.items() if "expired" in kind)
        for what, count, least in [
            ("sessions", len(self._sessions), 200),
            ("deliveries", len(self.deliveries), 1000),
            ("enforcements", len(self.enforcements), 50),
            ("streams of another epoch", self.gaps.get("fresh other-epoch partial", 0), 1),
            ("gaps within an epoch", laps, min(1, self._faults.counts.get("lap gateway", 0))),
        ]:
            if count < least:
                self.violations.append(f"only {count} {what}, expected {least} at least")

    def _naming(self, session):
        """The invalidations that name a session which was open before them."""
        return [
            number
            for number, name in self._by_user.get(session.user, ())
            if name in ("", session.name) and session.logged_in_at < self._published_at[number]
        ]

    def _look_at(self, session):
        named = self._naming(session)
        if named:
            first = named[0]
            for number, at in session.received:
                if number > first:
                    self.violations.append(
                        f"{session.name} of {session.user} was revoked by number-{first} and received "
                        f"{number}, {at - self._published_at[first]:.3f} s later"
                    )
                    break
            published = self._published_at[first]
            if session.is_served_at(published):
                end = session.streams[-1][1]
                if end is None:
                    self.violations.append(
                        f"{session.name} of {session.user} was revoked by number-{first} and is open"
                    )
                else:
                    self.enforcements.append(end - published)
        if session.closed and session.closed[0] == 4001:
            reasons = {
                f"number-{number}"
                for number, name in self._by_user.get(session.user, ())
                if name in ("", session.name)
            }
            if session.closed[1] not in reasons:
                self.violations.append(
                    f"{session.name} of {session.user} ended as revoked by {session.closed[1]!r}, "
                    "which does not name it"
                )
        seen = set()
        for number, at in session.received:
            if number not in seen:
                seen.add(number)
                self.deliveries.append(at - self._published_at[number])

    def _read_log(self, part):
        log = part.log()
        if "panicked" in log:
            self.violations.append(f"{part.name} has panicked")
        for found in SUBSCRIBED.finditer(log):
            kind = " ".join(filter(None, found.groups()))
            self.gaps[kind] = self.gaps.get(kind, 0) + 1
            # The same epoch, and the table of revocations is large: the server can tell them all.
            if found["reason"] == "expired" and found["revocations"] != "complete":
                self.violations.append(f"{part.name}: a gap was not healed: {found[0]}")

    def ratio(self):
        """The p99 of enforcement, in terms of that of delivery."""
        return percentile(self.enforcements, 0.99) / percentile(self.deliveries, 0.99)

    def report(self):
        def times(values):
            return {
                "count": len(values),
                "p50_ms": round(percentile(values, 0.5) * 1e3, 2),
                "p99_ms": round(percentile(values, 0.99) * 1e3, 2),
                "max_ms": round(max(values, default=float("nan")) * 1e3, 2),
            }

        return json.dumps(
            {
                "events": len(self._published_at),
                "invalidations": len(self._revocations),
                "sessions": len(self._sessions),
                "faults": dict(sorted(self._faults.counts.items())),
                "streams": dict(sorted(self.gaps.items())),
                "delivery": times(self.deliveries),
                "enforcement": times(self.enforcements),
                "p99_ratio": round(self.ratio(), 2),
                "violations": self.violations[:20],
            },
            indent=2,
        )
