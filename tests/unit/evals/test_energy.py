"""Electricity: a made-up powercap tree and clock, hand-worked estimates, and what is not known."""

import asyncio
import json
import math
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from distill import catalog, counters, energy
from distill.config import Energy
from distill.counters import Counters
from distill.energy import Range
from distill.providers import fake, openai, transformers
from distill.providers._base import Context
from distill.records import Message, Request
from evals import meter as meters
from evals.analysis import Arm
from evals.economics import Speed
from evals.energy import statement
from evals.load_report import Level, Timing
from evals.meter import Meter, Spent, Window, is_here
from evals.samples import Sample
from evals.timing import Timed

RANGE_UJ = 1_000_000_000  # the counter turns after 1,000 J


@pytest.fixture(autouse=True)
def no_accelerator(monkeypatch):
    """Nothing of the machine that runs the tests is read."""
    monkeypatch.setattr(counters, "ACCELERATORS", (Path("/nowhere/nvidia0"),))
    monkeypatch.setattr(counters, "find_spec", lambda name: None)
    monkeypatch.setattr(counters, "POWERCAP", "/nowhere")


def domain(tree, folder, name, joules):
    path = tree / folder
    path.mkdir(parents=True, exist_ok=True)
    (path / "name").write_text(f"{name}\n")
    (path / "max_energy_range_uj").write_text(f"{RANGE_UJ}\n")
    (path / "new").write_text(f"{round(joules * 1e6)}\n")
    (path / "new").rename(path / "energy_uj")  # whole, as the kernel's files are


@pytest.fixture
def tree(tmp_path):
    """One package of 100 J with its cores, graphics and memory; the same package again by another way; the platform."""
    root = tmp_path / "powercap"
    domain(root, "intel-rapl:0", "package-0", 100)
    domain(root, "intel-rapl:0:0", "core", 60)
    domain(root, "intel-rapl:0:1", "uncore", 10)
    domain(root, "intel-rapl:0:2", "dram", 30)
    domain(root, "intel-rapl:1", "psys", 500)
    domain(root, "intel-rapl-mmio:0", "package-0", 100)
    return root


def moved(tree, package, memory):
    """The counters show so many joules now; every other one has run far ahead."""
    domain(tree, "intel-rapl:0", "package-0", package)
    domain(tree, "intel-rapl:0:2", "dram", memory)
    for folder, name in (("intel-rapl:0:0", "core"), ("intel-rapl:1", "psys"), ("intel-rapl-mmio:0", "package-0")):
        domain(tree, folder, name, 900)


# -- counters -----------------------------------------------------------------------------------------------------


def test_packages_and_their_memory_are_added_and_nothing_is_counted_twice(tree):
    read = Counters(tree)
    moved(tree, 150, 37)
    assert read.joules() == pytest.approx(50 + 7)
    assert read.names == "RAPL package-0, dram of intel-rapl:0:2"
    assert read.whole
    assert read.missing == []


def test_a_counter_that_begins_again_is_read_on(tree):
    read = Counters(tree)
    moved(tree, 990, 30)
    assert read.joules() == pytest.approx(890)
    moved(tree, 20, 30)  # from 990 to 1,000, then 20 more
    assert read.joules() == pytest.approx(890 + 30)
    moved(tree, 10, 30)
    assert read.joules() == pytest.approx(890 + 30 + 990)


def test_the_thread_sees_a_turn_that_nobody_asked_about(tree, monkeypatch):
    monkeypatch.setattr(counters, "POLL_S", 0.01)
    with Counters(tree) as read:
        for package in (700, 350, 40):  # more than one turn: only someone who looks in between can tell
            moved(tree, package, 30)
            while read._domains[0].last_uj != package * 1_000_000:
                time.sleep(0.005)
        assert read.joules() == pytest.approx(600 + 650 + 690)
    unwatched = Counters(tree)
    for package in (700, 350, 40):
        moved(tree, package, 30)
    assert unwatched.joules() == 0  # negative control: two whole turns were missed


def test_a_counter_for_root_only_is_said_and_is_not_zero(tree, monkeypatch):
    """Negative control: as root every file can be read, so the refusal is made up."""

    def refused(path):
        raise PermissionError

    monkeypatch.setattr(counters, "_whole", refused)
    read = Counters(tree)
    assert (read.joules(), read.whole, read.names) == (None, False, "")
    assert read.missing == ["the processor's counter may be read by root only"]


def test_a_machine_without_counters_has_no_figure(tmp_path):
    read = Counters(tmp_path)
    assert (read.joules(), read.whole) == (None, False)
    assert "no energy counter" in read.missing[0]


def test_a_counter_that_fails_later_is_unknown_from_then_on(tree):
    read = Counters(tree)
    (tree / "intel-rapl:0" / "energy_uj").unlink()
    assert read.joules() is None
    domain(tree, "intel-rapl:0", "package-0", 200)
    assert read.joules() is None  # what lay between is not known


class Nvml:
    """Stands for NVIDIA's library: two cards, in millijoules."""

    class NVMLError(Exception):
        """As there."""

    def __init__(self):
        self.mj = {0: 5_000, 1: 80_000}
        self.broken = False

    def nvmlInit(self):  # noqa: N802
        if self.broken:
            raise self.NVMLError("Driver Not Loaded")

    def nvmlDeviceGetCount(self):  # noqa: N802
        return 2

    def nvmlDeviceGetHandleByIndex(self, number):  # noqa: N802
        return number

    def nvmlDeviceGetUUID(self, card):  # noqa: N802
        return f"GPU-{card}"

    def nvmlDeviceGetTotalEnergyConsumption(self, card):  # noqa: N802
        return self.mj[card]


@pytest.fixture
def nvml(monkeypatch, tmp_path):
    """Two cards in the machine."""
    made = Nvml()
    device = tmp_path / "nvidia0"
    device.touch()
    monkeypatch.setattr(counters, "ACCELERATORS", (device,))
    monkeypatch.setattr(counters, "find_spec", lambda name: object())
    monkeypatch.setitem(sys.modules, "pynvml", made)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return made


def test_cards_and_processor_are_one_figure(tree, nvml):
    read = Counters(tree)
    nvml.mj = {0: 15_000, 1: 81_000}
    moved(tree, 103, 30)
    assert read.joules() == pytest.approx(10 + 1 + 3)
    assert read.names.endswith("NVML 2 cards")


def test_only_the_cards_that_this_process_may_use_are_counted(tree, nvml, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "GPU-1")
    read = Counters(tree)
    nvml.mj = {0: 95_000, 1: 81_000}
    assert read.joules() == pytest.approx(1)


def test_a_machine_with_a_card_that_cannot_be_read_is_not_measured(tree, nvml):
    """The processor's counter alone would make the largest consumer free."""
    nvml.broken = True
    read = Counters(tree)
    assert read.joules() is not None  # the processor's
    assert not read.whole
    assert Meter(read, 0).joules() is None
    assert "Driver Not Loaded" in read.missing[0]


def test_a_card_without_the_processor_is_measured_and_the_rest_is_named(tmp_path, nvml):
    read = Counters(tmp_path / "none")
    assert read.whole
    assert "processor" in read.missing[0]


# -- a window of work ---------------------------------------------------------------------------------------------


class Clock:
    """Time and power as a test wants them."""

    def __init__(self, monkeypatch, watts):
        self.now, self.taken, self.watts = 100.0, 0.0, watts
        monkeypatch.setattr(meters.time, "perf_counter", lambda: self.now)
        monkeypatch.setattr(meters.time, "sleep", self.run)
        self.whole, self.names, self.missing = True, "RAPL package-0", []

    def run(self, seconds):
        self.now += seconds
        self.taken += seconds * self.watts

    def joules(self):
        return self.taken


def test_idle_power_is_taken_once_and_subtracted_in_a_second_figure(monkeypatch):
    """By hand: idle 20 W; then 10 s at 50 W answer 25 requests: 20 J each; 12 J above idle."""
    clock = Clock(monkeypatch, watts=20)
    meter = Meter(clock, idle_s=5)
    meter.settle()
    clock.watts = 50
    meter.settle()  # not again: the machine works now
    window = Window(meter)
    clock.run(7)  # nobody asks: not counted
    window.open()
    clock.run(4)
    window.answered(10)
    window.lap()
    clock.run(6)
    window.answered(15)
    window.close()
    clock.run(100)
    window.close()
    spent = window.spent
    assert (spent.requests, spent.seconds, spent.joules, spent.idle_j) == (25, 10, 500, 200)
    assert spent.wh_per_1000 == pytest.approx(500 / 25 * 1000 / 3600)
    assert spent.above_idle_wh_per_1000 == pytest.approx(300 / 25 * 1000 / 3600)
    assert spent.idle_w == 20


def test_a_part_that_is_unknown_makes_the_sum_unknown():
    known, unknown = Spent(1, 1.0, 5.0, 2.0), Spent(1, 1.0, None, None)
    assert (known + unknown).wh_per_1000 is None
    assert (known + unknown).requests == 2
    assert (known + known).joules == 10
    assert Spent(0, 1.0, 5.0, 2.0).wh_per_1000 is None


def test_an_answer_s_electricity_is_metered_while_calls_are_in_flight_and_outlives_the_process(tmp_path, monkeypatch):
    clock = Clock(monkeypatch, watts=36)
    clock.run(0)
    meter = Meter(clock, idle_s=1)
    requests = [Request((Message("user", "q"),))] * 3

    def timed():
        provider = fake.build(fake.Config(), Context())
        ask = provider.ask

        async def slow(some):
            clock.run(10)
            return await ask(some)

        provider.ask = slow
        return Timed(provider, tmp_path / "speed.json", "student", False, meter)

    one = timed()
    asyncio.run(one.ask(requests))
    clock.run(1000)  # between two calls: nobody's
    asyncio.run(one.ask(requests))
    one.close()
    assert (one.spent.requests, one.spent.joules) == (6, 720)
    again = timed()
    asyncio.run(again.ask(requests))
    assert (again.spent.requests, again.spent.joules) == (9, 1080)
    assert json.loads((tmp_path / "speed.json").read_text())["student"]["energy"]["joules"] == 1080


def test_without_a_meter_nothing_is_kept(tmp_path):
    timed = Timed(fake.build(fake.Config(), Context()), tmp_path / "speed.json", "student", False)
    asyncio.run(timed.ask([Request((Message("user", "q"),))]))
    timed.close()
    assert timed.spent is None
    assert "energy" not in json.loads((tmp_path / "speed.json").read_text())["student"]


@pytest.mark.parametrize(
    ("url", "here"),
    [
        ("http://127.0.0.1:8000/v1", True),
        ("http://localhost:8000/v1", True),
        ("http://[::1]:8000/v1", True),
        ("http://10.0.0.7:8000/v1", False),
        ("https://api.mistral.ai/v1", False),
        ("http://gpu-box:8000/v1", False),
    ],
)
def test_only_servers_on_this_machine_are_metered(url, here):
    assert is_here(openai.Config(model="m", base_url=url)) is here


# -- formulas -----------------------------------------------------------------------------------------------------


def test_the_estimate_of_an_api_is_the_published_regression_and_its_range_holds_it():
    """24B dense: 1 card. By hand, per token written at 64 at once and PUE 1.5, plus 500 tokens read."""
    card = 1.1665e-6 * math.exp(-0.011206 * 64) * 24 + 4.0529e-5
    seconds = 6.785e-4 * 24 + 3.119e-4 * 64 + 0.01947
    written = 1.5 * (1200 * seconds / 3600 / 8 / 64 + card) * 100
    read = 1.5 * 500 * 2 * 24e9 / (989e12 * 0.35) * (0.75 * 700 + 150) / 3600
    found = energy.api_wh(24, 24, 500, 100)
    assert found.value == pytest.approx(written + read)
    assert found.low < written < found.value < found.high
    ecologits = 0.109 * 100 / 1000  # kWh per 10^6 tokens = Wh per 1,000, in the research note at PUE 1.2
    assert found.low < ecologits < found.high


def test_a_larger_model_takes_more_and_a_mixture_is_counted_by_what_is_active():
    dense, mixture = energy.api_wh(70, 70, 100, 100), energy.api_wh(5, 70, 100, 100)
    assert energy.api_wh(8, 8, 100, 100).value < mixture.value < dense.value


def test_making_a_server_is_spread_over_three_years():
    """By hand: 1 card of 273 kg and an eighth of 5,700 kg, 64 requests at once, 26,280 h."""
    seconds = 100 * (6.785e-4 * 8 + 3.119e-4 * 64 + 0.01947)
    grams = 1000 * (273 + 5700 / 8) * seconds / 64 / (26_280 * 3600)
    found = energy.api_embodied_g(8, 8, 100)
    assert found.value == pytest.approx(grams)
    assert found.low < found.value < found.high


def test_a_card_at_work_takes_a_share_of_its_limit():
    gpu = next(row for row in catalog.gpus() if row.id == "H100-SXM")
    assert energy.cards_w(gpu, 2) == Range(2 * (525 + 150), 2 * (210 + 150), 2 * (700 + 150))
    found = energy.cards_embodied_g(gpu, 1, 26_280 * 3600)
    assert (found.low, found.high) == (pytest.approx(1000 * (712.5 + 287.55)), pytest.approx(1000 * (712.5 + 575.1)))
    unknown = next(row for row in catalog.gpus() if row.embodied_kg is None)
    assert energy.cards_embodied_g(unknown, 1, 10) is None


# -- the statement ------------------------------------------------------------------------------------------------

LOCAL = transformers.Config(model="smollm2-135m-instruct")
MISTRAL = openai.Config(model="zai-glm-5-3-flash", provider="mistral")


def samples(prompt=100, completion=10, count=4):
    return [
        Sample(str(n), "t", str(n), "", "", "", "", "", 1.0, prompt_tokens=prompt, completion_tokens=completion)
        for n in range(count)
    ]


def arm(spent=None, speed=None, **tokens):
    return Arm("student", "the student", samples(**tokens), spent=spent, speed=speed)


def stated(settings, one, system=LOCAL, best=None, meter=None):
    systems = {"student": system} if system is not None else {}
    found = statement(settings, [one], systems, {"student": best} if best else {}, meter)
    return found, found["arms"][0]


def meter_with(missing=()):
    return Meter(SimpleNamespace(whole=True, names="RAPL package-0", missing=list(missing), joules=lambda: 0.0), 0)


def test_a_measured_figure_is_at_the_site_and_its_carbon_is_the_zone_s():
    """By hand: 7,200 J for 100 requests = 20 Wh per 1,000; PUE 1.2: 24; Germany's 380.9 g/kWh: 9.1416 g."""
    spent = Spent(100, 60.0, 7200.0, 60 * 30.0)
    found, one = stated(Energy(zone="DEU", pue=1.2), arm(spent), meter=meter_with())
    assert (found["zone"], found["pue"], found["grid"]["g_per_kwh"], found["grid"]["year"]) == ("DEU", 1.2, 380.9, 2023)
    assert (one["how"], one["meter"], one["idle_w"]) == ("measured", "RAPL package-0", 30)
    assert list(one["wh_per_1000_requests"].values()) == pytest.approx([24] * 3)
    assert one["above_idle_wh_per_1000_requests"] == pytest.approx(24 * (7200 - 1800) / 7200)
    assert one["co2e_g_per_1000_requests"]["value"] == pytest.approx(24 * 0.3809)
    assert one["embodied_g_per_1000_requests"] is None  # nobody says what making this machine took
    assert "PUE 1.2" in one["note"]
    assert "rough" not in one["note"]


def test_without_a_zone_there_is_no_carbon_and_without_idle_no_second_figure():
    found, one = stated(Energy(), arm(Spent(10, 5.0, 100.0, None)), meter=meter_with(["the processor: root only"]))
    assert (found["zone"], found["grid"], one["co2e_g_per_1000_requests"]) == (None, None, None)
    assert (one["above_idle_wh_per_1000_requests"], one["idle_w"]) == (None, None)
    assert one["wh_per_1000_requests"]["value"] > 0
    assert "not in it: the processor: root only" in one["note"]
    assert "rough" in one["note"]


def test_the_best_level_under_load_comes_before_the_answers_to_the_items():
    level = Level(4, 40.0, [Timing(1.0)] * 20 + [Timing(0.1, error="http_500")] * 5, Spent(20, 40.0, 720.0, 0.0))
    spent = Spent(100, 60.0, 7200.0, 0.0)
    _, one = stated(Energy(pue=1), arm(spent), best=level, meter=meter_with())
    assert one["wh_per_1000_requests"]["value"] == pytest.approx(10)
    assert "4 in flight" in one["note"]
    unmetered = Level(4, 40.0, [Timing(1.0)] * 20)  # kept from before electricity was wanted
    _, one = stated(Energy(pue=1), arm(spent), best=unmetered, meter=meter_with())
    assert one["wh_per_1000_requests"]["value"] == pytest.approx(20)


def test_stated_watts_give_an_estimate_with_its_range():
    """By hand: 50 s for 100 requests at 20 to 60 W, PUE 1.5: 1,000 requests take 500 s = 4.17 to 12.5 Wh."""
    _, one = stated(Energy(watts=(20, 60), pue=1.5, zone="FRA"), arm(speed=Speed(100, 1, 1, 50.0)))
    assert (one["how"], one["meter"], one["idle_w"]) == ("estimated", "", None)
    found = one["wh_per_1000_requests"]
    assert (found["low"], found["value"], found["high"]) == (
        pytest.approx(500 * 20 / 3600 * 1.5),
        pytest.approx(500 * 40 / 3600 * 1.5),
        pytest.approx(500 * 60 / 3600 * 1.5),
    )
    assert one["above_idle_wh_per_1000_requests"] is None
    assert one["co2e_g_per_1000_requests"]["high"] == pytest.approx(found["high"] * 0.056)


def test_a_named_card_gives_an_estimate_and_the_making_of_it():
    _, one = stated(Energy(gpu="L4", pue=1), arm(speed=Speed(1000, 1, 1, 100.0)))
    assert one["wh_per_1000_requests"]["value"] == pytest.approx(100 * (0.75 * 72 + 150) / 3600)
    made = one["embodied_g_per_1000_requests"]
    assert made["low"] < made["value"] < made["high"] == pytest.approx(1000 * (712.5 + 123.5) * 100 / (26_280 * 3600))


def test_unknown_stays_unknown_and_says_what_would_help():
    _, one = stated(Energy(zone="FRA"), arm(speed=Speed(100, 1, 1, 50.0)))
    assert one["how"] == "unknown"
    keys = ("wh", "above_idle_wh", "co2e_g", "embodied_g")
    assert [one[f"{key}_per_1000_requests"] for key in keys] == [None] * 4
    assert "eval.energy.watts" in one["note"]
    _, recorded = stated(Energy(watts=(1, 2)), arm(), system=None)  # a file of answers
    assert (recorded["how"], recorded["wh_per_1000_requests"]) == ("unknown", None)


def test_the_watts_of_this_machine_say_nothing_about_another():
    away = openai.Config(model="m", base_url="http://10.0.0.7:8000/v1")
    _, one = stated(Energy(watts=(20, 60)), arm(speed=Speed(100, 1, 1, 50.0)), system=away)
    assert (one["how"], one["wh_per_1000_requests"]) == ("unknown", None)
    assert "another machine" in one["note"]


def test_an_api_is_estimated_over_its_grids_and_never_by_this_machine_s_counters():
    row = catalog.find_model("zai-org/GLM-5.3-Flash")
    _, one = stated(Energy(zone="FRA", watts=(1, 2)), arm(Spent(1, 1, 1, 1)), system=MISTRAL, meter=meter_with())
    assert (one["how"], one["meter"], one["idle_w"]) == ("estimated", "", None)
    by_hand = energy.api_wh(row.active_b, row.params_b, 100, 10)
    found, carbon = one["wh_per_1000_requests"], one["co2e_g_per_1000_requests"]
    assert found["value"] == pytest.approx(1000 * by_hand.value)
    assert found["low"] < found["value"] < found["high"]
    assert carbon["low"] == pytest.approx(found["low"] * 0.0407)  # Sweden, of the EU
    assert carbon["high"] == pytest.approx(found["high"] * 0.6619)  # Poland
    assert one["embodied_g_per_1000_requests"]["low"] > 0


def test_an_api_whose_model_or_tokens_are_not_known_is_unknown():
    secret = openai.Config(model="mistral-large-4", provider="mistral")
    _, one = stated(Energy(zone="FRA"), arm(), system=secret)
    assert (one["how"], one["wh_per_1000_requests"], one["co2e_g_per_1000_requests"]) == ("unknown", None, None)
    assert "how large" in one["note"]
    _, one = stated(Energy(zone="FRA"), arm(completion=None), system=MISTRAL)
    assert one["how"] == "unknown"
