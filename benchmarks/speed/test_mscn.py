"""
Speed of mscn: training beside the padded, dense, element-by-element reference, and all subplans of a query from text to estimates.

    pytest benchmarks/speed/test_mscn.py

Both ways of training take the same batches of 2048 subplans of the generated `stats_tiny` queries and compute the same loss (which is
checked), on one thread; rates are per second of processor time. The reference pads every set to its largest, encodes every element of
every sample, and computes the loss in a Python loop, as published implementations do; padding itself is not counted. Labels are made
up, because time does not depend on them. No server runs.
"""

from __future__ import annotations

import math
import re
import statistics
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from time import perf_counter_ns, process_time_ns

import numpy as np
import pytest
import torch
from pytest_benchmark.fixture import BenchmarkFixture
from sqlglot import parse_one
from torch import Tensor

from benchmarks.padded_mscn import padded, reference_loss, reference_rows
from pytest_pilotscope.algorithms.devices import one_thread, seeded
from pytest_pilotscope.algorithms.mscn.estimation import TrainedModel
from pytest_pilotscope.algorithms.mscn.featurize import Featurizer
from pytest_pilotscope.algorithms.mscn.learning import LARGEST_BATCH, loss_of
from pytest_pilotscope.algorithms.mscn.model import MscnNetwork
from pytest_pilotscope.algorithms.mscn.ragged import LabelledSubplans, labelled
from pytest_pilotscope.algorithms.mscn.vocabulary import Vocabulary
from pytest_pilotscope.algorithms.table_samples import SAMPLE_ROWS, Samples, TableSample
from pytest_pilotscope.builtins import builtin_registry
from pytest_pilotscope.datasets.stats.dataset import StatsDataset
from pytest_pilotscope.datasets.stats.generate import generate
from pytest_pilotscope.datasets.stats.schema import TABLES
from pytest_pilotscope.datasets.stats.tables import Table
from pytest_pilotscope.queries.joins import JoinQuery, Schema
from pytest_pilotscope.queries.plainparser import read_plain
from pytest_pilotscope.queries.queries import Query, Workload

BATCH_SIZE, HIDDEN_UNITS = LARGEST_BATCH, builtin_registry().options("mscn", {})["hidden_units"]
EPOCHS = 100
CONSTANT = re.compile(r"(?<![\w.'])\d+(?![\w.'])")
Show = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Generated:
    """The generated tables and queries."""

    workload: Workload
    tables: dict[str, Table]

    def featurizer(self, *, bitmaps: bool) -> Featurizer:
        """Make a featurizer with an empty cache."""
        schema = {table: dict(types) for table, types in TABLES.items()}
        ranges = {
            name: {key: (float(of.values.min()), float(of.values.max())) for key, of in table.columns.items()}
            for name, table in self.tables.items()
        }
        samples = Samples({name: sample(table, schema) for name, table in self.tables.items()}) if bitmaps else None
        return Featurizer(Vocabulary(schema=schema, ranges=ranges), samples)


def sample(table: Table, schema: Schema) -> TableSample:
    """Sample 1000 rows of a generated table."""
    rows = np.random.default_rng(0).permutation(table.rows)[:SAMPLE_ROWS]
    texts = {
        key: tuple(
            str(value) if there else None for value, there in zip(of.values[rows].tolist(), of.present()[rows].tolist(), strict=True)
        )
        for key, of in table.columns.items()
    }
    return TableSample(table.name, schema[table.name], texts)


@pytest.fixture(scope="module")
def generated() -> Generated:
    """Generate the data once."""
    return generated_stats()


def generated_stats() -> Generated:
    """Generate `stats_tiny`, without a server."""
    dataset = StatsDataset(name="stats_tiny")
    return Generated(workload=dataset.workload(), tables=generate(dataset.scale, dataset.seed))


@pytest.fixture(autouse=True)
def single_thread() -> Iterator[None]:
    """Compute on one core for both ways."""
    with one_thread():
        yield


def labelled_subplans(featurizer: Featurizer, queries: Sequence[Query]) -> LabelledSubplans:
    """Make samples of all subplans, with made-up rows."""
    parsed = [read_plain(query.sql, featurizer.vocabulary.schema) for query in queries]
    return labelled(featurizer, [(query, {mask: 10 ** mask.bit_count() for mask in query.masks}) for query in parsed])


def subplan_sql(query: JoinQuery, mask: int) -> str:
    """Return the SQL of a subplan, the reference's input."""
    aliases = query.subplan(mask)
    relations = [query.relations[alias] for alias in query.aliases if alias in aliases]
    conditions = [f"{relation.alias}.{predicate.sql}" for relation in relations for predicate in relation.predicates]
    for members in query.classes:
        conditions += [f"{a.alias}.{a.column} = {b.alias}.{b.column}" for a, b in pairwise(ref for ref in members if ref.alias in aliases)]
    where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
    return f"SELECT count(*) FROM {', '.join(f'{relation.table} AS {relation.alias}' for relation in relations)}{where}"  # noqa: S608  # made of a generated query


def step(network: MscnNetwork, optimizer: torch.optim.Optimizer, loss: Callable[[], Tensor]) -> None:
    """Train one step."""
    optimizer.zero_grad()
    loss().backward()  # type: ignore[no-untyped-call]
    optimizer.step()


def fresh(featurizer: Featurizer, samples: LabelledSubplans) -> tuple[MscnNetwork, torch.optim.Optimizer]:
    """Make a network of the full size, and its optimizer."""
    with seeded(0):
        network = MscnNetwork(featurizer.widths, hidden=HIDDEN_UNITS)
    network.set_label_range(0.0, float(samples.labels.max()), float(samples.labels.mean()))
    return network, torch.optim.Adam(network.parameters(), lr=1e-3, fused=True)


def seconds(run: Callable[[], object]) -> float:
    """Return the wall clock time of one run."""
    started_ns = perf_counter_ns()
    run()
    return (perf_counter_ns() - started_ns) / 1e9


def core_seconds(run: Callable[[], object], times: int) -> float:
    """Return the shortest processor time of some runs on one thread."""
    found = []
    for _ in range(times):
        started_ns = process_time_ns()
        run()
        found.append((process_time_ns() - started_ns) / 1e9)
    return min(found)


def varied(queries: Sequence[Query], number: int) -> Query:
    """Return a query of a larger workload: one of these, with other constants in each repetition."""
    turn, at = divmod(number, len(queries))
    sql = CONSTANT.sub(lambda constant: str(int(constant[0]) + turn), queries[at].sql)
    return Query(id=f"{turn}-{queries[at].id}", sql=sql)


def rates(featurizer: Featurizer, samples: LabelledSubplans, benchmark: BenchmarkFixture, *, epochs: int) -> tuple[float, float]:
    """Return samples per second of processor time: of the best of some epochs, and of the best of three reference batches."""
    order = np.random.default_rng(0).permutation(len(samples.queries) - 1)
    network, optimizer = fresh(featurizer, samples)
    first = next(iter(samples.batches(BATCH_SIZE, order)))
    reference = padded(first)
    torch.testing.assert_close(loss_of(network, first, 1e30), reference_loss(network, reference), rtol=1e-4, atol=1e-4)

    def epoch() -> None:
        for batch in samples.batches(BATCH_SIZE, order):
            step(network, optimizer, partial(loss_of, network, batch, math.e))

    benchmark.pedantic(epoch, rounds=epochs, warmup_rounds=1)  # type: ignore[no-untyped-call]  # pytest-benchmark is typed in part
    ours_per_s = len(samples) / core_seconds(epoch, epochs)
    theirs_per_s = len(first.labels) / core_seconds(lambda: step(network, optimizer, lambda: reference_loss(network, reference)), 3)
    benchmark.extra_info.update(
        samples=len(samples), samples_per_s=ours_per_s, reference_samples_per_s=theirs_per_s, ratio=ours_per_s / theirs_per_s
    )
    return ours_per_s, theirs_per_s


@pytest.mark.parametrize(
    ("bitmaps", "queries", "goal"), [(False, 470, 40), (True, 470, 20), (False, 5000, 30)], ids=["without bitmaps", "with bitmaps", "100 k"]
)
def test_training(generated: Generated, benchmark: BenchmarkFixture, show: Show, bitmaps: bool, queries: int, goal: int) -> None:
    """Training reaches its goal over a batch of the reference, in an epoch over 10,000 or 100,000 subplans."""
    featurizer = generated.featurizer(bitmaps=bitmaps)
    samples = labelled_subplans(featurizer, [varied(generated.workload.train, number) for number in range(queries)])
    ours_per_s, theirs_per_s = rates(featurizer, samples, benchmark, epochs=2)
    show(
        f"mscn training {'with' if bitmaps else 'without'} bitmaps, {len(samples)} subplans: {ours_per_s:,.0f} samples/s, "
        f"padded and dense {theirs_per_s:,.0f} samples/s, ratio {ours_per_s / theirs_per_s:.0f} (goal {goal})"
    )


def test_pipeline(generated: Generated, benchmark: BenchmarkFixture, show: Show) -> None:
    """The report has the time from 1000 training queries' text to the end of 100 epochs, computed from one epoch of each way."""
    queries = generated.workload.train
    featurizer = generated.featurizer(bitmaps=True)
    made: list[LabelledSubplans] = []
    features_s = core_seconds(lambda: made.append(labelled_subplans(featurizer, queries)), 1)
    parsed_s = statistics.mean(core_seconds(partial(parse_one, query.sql, dialect="postgres"), 1) for query in queries[:20])
    ours_per_s, theirs_per_s = rates(featurizer, made[0], benchmark, epochs=2)
    ours_s = features_s + EPOCHS * len(made[0]) / ours_per_s
    theirs_s = 2 * parsed_s * len(made[0]) + EPOCHS * len(made[0]) / theirs_per_s
    benchmark.extra_info.update(pipeline_s=ours_s, reference_pipeline_s=theirs_s, pipeline_ratio=theirs_s / ours_s)
    show(
        f"mscn, {len(queries)} queries ({len(made[0])} subplans) with bitmaps, parsed, featurized and learned for {EPOCHS} epochs: "
        f"{ours_s:.0f} s of processor time, the reference {theirs_s:,.0f} s, ratio {theirs_s / ours_s:.0f} (goal 40)"
    )


def reference_estimates(featurizer: Featurizer, network: MscnNetwork, query: Query) -> float:
    """Return the reference's seconds for all subplans of a query: it parses each one's SQL twice, then pads their sets."""
    parsed = read_plain(query.sql, featurizer.vocabulary.schema)
    texts = [subplan_sql(parsed, mask) for mask in parsed.masks]
    batch = next(iter(labelled_subplans(featurizer, [query]).batches(BATCH_SIZE, np.array([0]))))

    def estimates() -> None:
        for text in texts:
            parse_one(text, dialect="postgres")
            parse_one(text, dialect="postgres")
        with torch.no_grad():
            reference_rows(network, padded(batch))

    return seconds(estimates)


def unmet(generated: Generated, network: MscnNetwork, *, bitmaps: bool) -> TrainedModel:
    """Make a model with empty caches but typed sample columns, which a model makes once."""
    featurizer = generated.featurizer(bitmaps=bitmaps)
    made = TrainedModel(vocabulary=featurizer.vocabulary, samples=featurizer.samples, network=network)
    for table in made.samples.tables.values() if made.samples is not None else ():
        for name in table.texts:
            table.column(name)
    return made


def median_ms(times_s: Iterable[float]) -> float:
    """Return the median, in ms."""
    return 1000 * statistics.median(times_s)


@pytest.mark.parametrize("bitmaps", [False, True], ids=["without bitmaps", "with bitmaps"])
def test_estimation(generated: Generated, benchmark: BenchmarkFixture, show: Show, bitmaps: bool) -> None:
    """A model with empty caches estimates all subplans of every test query, from its text."""
    network = MscnNetwork(generated.featurizer(bitmaps=bitmaps).widths, hidden=HIDDEN_UNITS)
    fresh_model = partial(unmet, generated, network, bitmaps=bitmaps)
    texts = [query.sql for query in generated.workload.test]

    def all_queries(made: TrainedModel) -> list[float]:
        return [seconds(partial(made.estimate, text)) for text in texts]

    new_s: list[float] = benchmark.pedantic(all_queries, setup=lambda: ((fresh_model(),), {}), rounds=5)  # type: ignore[no-untyped-call]  # pytest-benchmark is typed in part
    known, unseen, unparsed = fresh_model(), fresh_model(), fresh_model()
    all_queries(known)
    queries = [known.parse(text) for text in texts]
    subplans = [len(query.masks) for query in queries]
    single = fresh_model()
    others = [varied(generated.workload.test, len(texts) + number).sql for number in range(len(texts))]
    compiled, numpy = fresh_model(), fresh_model()
    numpy.use_numpy("for the benchmark")
    all_queries(compiled), all_queries(numpy)
    in_turns = [(seconds(partial(compiled.estimate, text)), seconds(partial(numpy.estimate, text))) for text in others]
    found = {
        "other_constants_ms": median_ms(ours_s for ours_s, _ in in_turns),
        "other_constants_numpy_ms": median_ms(numpy_s for _, numpy_s in in_turns),
        "median_ms": median_ms(new_s),
        "median_core_ms": median_ms(core_seconds(partial(unseen.estimate, text), 1) for text in texts),
        "again_ms": median_ms(all_queries(known)),
        "parse_ms": median_ms(seconds(partial(unparsed.parse, text)) for text in texts),
        "one_subplan_ms": median_ms(seconds(partial(single.rows, query, query.masks[-1:])) for query in queries),
        "reference_ms": median_ms(
            reference_estimates(generated.featurizer(bitmaps=bitmaps), network, query) for query in generated.workload.test[::5]
        ),
    }
    ratio = found["reference_ms"] / found["median_ms"]
    benchmark.extra_info.update(found, ratio=ratio, subplans=sum(subplans))
    show(
        f"mscn {'with' if bitmaps else 'without'} bitmaps, all subplans of a query (median {statistics.median(subplans):.0f}) "
        f"from text to estimates: median {found['median_ms']:.2f} ms for a new text ({found['median_core_ms']:.2f} ms of processor time, "
        f"{found['parse_ms']:.2f} ms for parsing), {found['again_ms']:.2f} ms for a known one; with other constants than a known one "
        f"{found['other_constants_ms']:.2f} ms {compiled.path}, {found['other_constants_numpy_ms']:.2f} ms in NumPy; "
        f"the known way {found['reference_ms']:.0f} ms, ratio {ratio:.0f} (goal 17); "
        f"one subplan of a parsed query takes {found['one_subplan_ms']:.2f} ms (goal 0.3)"
    )


def test_featurize(generated: Generated, benchmark: BenchmarkFixture, show: Show) -> None:
    """The report has the time to featurize parsed queries, beside parsing the SQL twice per subplan; no bitmap is cached."""
    queries = generated.workload.test
    parsed = [(found, dict.fromkeys(found.masks, 1)) for found in (read_plain(query.sql, TABLES) for query in queries)]

    def fresh_featurizer() -> tuple[tuple[Featurizer], dict[str, object]]:
        return (generated.featurizer(bitmaps=True),), {}

    samples = benchmark.pedantic(  # type: ignore[no-untyped-call]  # pytest-benchmark is typed in part
        lambda featurizer: labelled(featurizer, parsed), setup=fresh_featurizer, rounds=5
    )
    (featurizer,), _ = fresh_featurizer()
    ours_us = 1e6 * core_seconds(lambda: labelled(featurizer, parsed), 3) / len(samples)
    theirs_us = 2e6 * statistics.mean(core_seconds(partial(parse_one, query.sql, dialect="postgres"), 3) for query in queries[:20])
    benchmark.extra_info.update(us_per_subplan=ours_us, reference_us_per_subplan=theirs_us, ratio=theirs_us / ours_us)
    show(
        f"mscn featurize: {ours_us:.1f} us per subplan, parsing twice per subplan {theirs_us:,.0f} us, "
        f"ratio {theirs_us / ours_us:.0f} (goal 50)"
    )
