"""Which results go to which destination."""

from hypothesis import given
from hypothesis import strategies as st

from labbridge.model import Decided, Verdict
from labbridge.routing import Route, destinations

RESULTS = [Decided(n, test, Verdict("release"), test) for n, test in enumerate(("K", "GLU", "NA", "K"))]


def routed(routes: list[Route], analyzer: str = "a-1") -> dict[str, list[str]]:
    return {to: [one.test for one in found] for to, found in destinations(routes, analyzer, RESULTS).items()}


def test_a_route_without_filters_takes_everything() -> None:
    assert routed([Route("his")]) == {"his": ["K", "GLU", "NA", "K"]}
    assert routed([]) == {}


def test_a_route_takes_the_analyzers_and_tests_that_it_names() -> None:
    routes = [Route("his", frozenset({"a-1"})), Route("icu", frozenset(), frozenset({"K"})), Route("no", frozenset({"b"}))]
    assert routed(routes) == {"his": ["K", "GLU", "NA", "K"], "icu": ["K", "K"]}
    assert routed(routes, "b") == {"icu": ["K", "K"], "no": ["K", "GLU", "NA", "K"]}


def test_a_destination_of_which_nothing_is_wanted_gets_nothing() -> None:
    assert routed([Route("his", frozenset(), frozenset({"TSH"}))]) == {}


@given(
    st.lists(
        st.builds(
            Route,
            st.sampled_from(["his", "icu"]),
            st.frozensets(st.sampled_from(["a-1", "b"]), max_size=1),
            st.frozensets(st.sampled_from(["K", "GLU", "NA"])),
        ),
        max_size=6,
    )
)
def test_routes_add_up_and_send_nothing_twice(routes: list[Route]) -> None:
    found = destinations(routes, "a-1", RESULTS)
    for to in ("his", "icu"):
        fitting = [route for route in routes if route.to == to and route.analyzers <= {"a-1"}]
        wanted = [one for one in RESULTS if any(not route.tests or one.test in route.tests for route in fitting)]
        assert found.get(to, []) == wanted
