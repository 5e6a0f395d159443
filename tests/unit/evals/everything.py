"""The made-up evaluation with every optional part of a report: load, energy, words, judges, translations."""

from __future__ import annotations

from tests.unit.evals.synthetic import LANGUAGES, made


def estimate(value, spread=0.1):
    """A value with an interval around it."""
    return {"value": value, "low": value * (1 - spread), "high": value * (1 + spread)}


def everything(**changes):
    """A report that fills every section of the page."""
    report = made(**changes)
    report |= {"load": load(), "energy": energy(), "words": words(), "judges": judges(), "corpus": corpus()}
    report |= {"likelihood": likelihood(), "went": went(), "planned": planned()}
    report["leaks"] = {"checked": 240, "exact": 0, "near": 0}
    report["fidelity"] |= behaviour()
    parts = zip(report["languages"], ("easy", "fair", "hard", "odd"), strict=True)
    report["slices"] = {"difficulty": [{**row, "name": name} for row, name in parts]}
    return report


def load():
    """Two systems under load: one of them streamed and held to an objective."""
    return {
        "objective": {"ttft_s": 0.8, "tpot_s": 0.06, "e2e_s": 4.0, "share": 0.95},
        "prompts": 64,
        "arms": [load_arm("student", "transformers", True, 1.0), load_arm("teacher", "llama.cpp server", False, 3.4)],
    }


def load_arm(name, engine, streamed, slow):
    """Latency that grows with the load, and a throughput that levels off."""
    levels = []
    for concurrency in (1, 2, 4, 8, 16, 32):
        busy = slow * (0.35 + 0.05 * concurrency**1.15)
        rate = 2.6 / slow * concurrency / (1 + 0.13 * concurrency)
        within = max(0.0, min(1.0, 1.25 - busy / 4.2))
        three = lambda v: {"p50": v, "p95": 1.5 * v, "p99": 1.9 * v}  # noqa: E731
        levels.append(
            {
                "concurrency": concurrency,
                "requests": 64 * concurrency,
                "errors": int(concurrency == 32),
                "seconds": 64 * concurrency / rate,
                "prompt_tokens": 5800 * concurrency,
                "completion_tokens": 400 * concurrency if streamed else None,
                "ttft": three(busy * 0.3) if streamed else None,
                "tpot": three(0.02 * busy) if streamed else None,
                "e2e": three(busy),
                "requests_per_s": rate,
                "tokens_per_s": 97 * rate if streamed else None,
                "within": within,
                "goodput_per_s": rate * within,
            }
        )
    passing = [n for n, level in enumerate(levels) if level["within"] >= 0.95]
    best = max(passing, key=lambda n: levels[n]["goodput_per_s"]) if passing else None
    return {"name": name, "engine": engine, "streamed": streamed, "best": best, "levels": levels}


NOTE = (
    "EcoLogits' regression for 22B active of 22B parameters on H100 servers, 1 to 32 requests at once, "
    "PUE 1.09 to 1.2, reading from free to 40% of the peak; 210 and 4 tokens a request; grids FR, SE; "
    "making the servers over three years"
)


def energy():
    """One system measured, one estimated, one unknown."""
    known = {"idle_w": 11.4, "note": ""}
    return {
        "zone": "FR",
        "pue": 1.2,
        "grid": {"g_per_kwh": 21.7, "year": 2024, "source": "RTE, bilan électrique 2024"},
        "arms": [
            {"name": "student", "how": "measured", "meter": "RAPL", **known}
            | figures(3.1, 0.05, above=2.2),
            {"name": "teacher", "how": "estimated", "meter": "", "idle_w": None, "note": NOTE}
            | figures(38.0, 0.6),
            {"name": "baseline", "how": "unknown", "meter": "", "idle_w": None, "note": ""} | figures(None, 0),
        ],
    }  # fmt: skip


def figures(wh, spread, above=None):
    """Energy and carbon of 1,000 requests; all unknown without energy."""
    return {
        "wh_per_1000_requests": wh and estimate(wh, spread),
        "above_idle_wh_per_1000_requests": above,
        "co2e_g_per_1000_requests": wh and estimate(wh * 0.0217, spread),
        "embodied_g_per_1000_requests": wh and estimate(wh * 0.008, 0.4),
    }


def words():
    """Languages that a tokenizer cuts into more or fewer pieces."""
    cut = dict(zip(LANGUAGES, (1.31, 1.74, 1.92, 1.83), strict=True))
    return [
        {
            "lang": lang,
            "words": 3100 + 40 * number,
            "characters": 17_000 + 900 * number,
            "arms": {
                "teacher": {"tokens_per_word": cut[lang] * 0.9, "eur_per_1000_words": cut[lang] * 0.0021},
                "student": {"tokens_per_word": cut[lang], "eur_per_1000_words": cut[lang] * 0.0004},
                "baseline": {"tokens_per_word": None, "eur_per_1000_words": None},
            },
        }
        for number, lang in enumerate(LANGUAGES)
    ]


def behaviour():
    """Refusals and answers in another language."""
    return {
        "refusals": {
            "candidate": {"n": 5, "share": estimate(5 / 240, 0.6)},
            "reference": {"n": 3, "share": estimate(3 / 240, 0.7)},
            "both": 2,
        },
        "languages": {
            "candidate": {
                "checked": 180,
                "wrong": 9,
                "share": estimate(0.05, 0.5),
                "wrong_line": 12,
                "share_line": estimate(0.067, 0.5),
            },
            "reference": {"checked": 0, "wrong": 0, "share": None, "wrong_line": 0, "share_line": None},
        },
    }


def judges():
    """A judge in both orders that knows one of the systems, and one against reference answers."""
    pair = {
        "win_rate": estimate(0.41),
        "length_controlled": estimate(0.44),
        "position_consistency": estimate(0.83),
        "verdicts": {"lost": 21, "tied": 30, "unreadable": 1, "won": 28},
        "extra_characters": -31.5,
        "unreadable": 1,
    }
    grade = {"rate": estimate(0.72), "corrected": estimate(0.69, 0.2), "unreadable": 0}
    calibration = {"n": 64, "enough": False, "agreement": estimate(0.86), "kappa": estimate(0.71, 0.2)}
    common = {"judge": "mistral-medium-3.5", "cost_eur": 0.0421, "unreadable": 1}
    return [
        {"task": "letters", "mode": "pairwise", "verdicts": 160, "judges_itself": ["teacher"], "calibration": None,
         "arms": {"teacher": {"reference": True}, "student": pair}, **common},
        {"task": "questions", "mode": "graded", "verdicts": 160, "judges_itself": [], "calibration": calibration,
         "arms": {"teacher": grade, "student": grade}, **common},
    ]  # fmt: skip


def corpus():
    """BLEU and chrF2 of a translation set."""
    return [
        {
            "task": "flores-en-fr",
            "n": 120,
            "arms": {
                "teacher": {"bleu": estimate(38.2), "chrf": estimate(62.4)},
                "student": {"bleu": estimate(33.9), "chrf": estimate(58.1)},
            },
            "difference": {
                "bleu": {"value": -4.3, "low": -6.1, "high": -2.4},
                "chrf": {"value": -4.3, "low": -5.9, "high": None},
            },
        }
    ]


def likelihood():
    """Bits per byte of given texts, with a common tokenizer and without."""
    arms = {
        "teacher": {"bits_per_byte": estimate(0.71), "perplexity": 6.42},
        "student": {"bits_per_byte": estimate(0.88), "perplexity": 9.83},
    }
    apart = {"nats_per_token": estimate(0.21), "same_first": estimate(0.79), "tokens": 18_212, "top": 64}
    return [
        {"task": "notices", "n": 80, "arms": arms, "divergence": apart},
        {"task": "manuals", "n": 80, "arms": arms, "divergence": None},
    ]


def went():
    """One API in Europe and this machine."""
    return [
        {"model": "mistral-medium-3.5", "host": "api.mistral.ai", "company": "Mistral AI (FR)", "regions": ["EU"],
         "sends": 1240, "bytes_sent": 1_843_200, "bytes_kept": 812_331},
        {"model": "smollm2-135m-instruct", "host": "this machine", "company": None, "regions": [], "sends": 960,
         "bytes_sent": 0, "bytes_kept": 61_440},
    ]  # fmt: skip


def planned():
    """The plan beside what was."""
    return [
        {"what": "prompts", "planned": 1200, "actual": 1200, "above": 0.0},
        {"what": "teacher, EUR", "planned": 0.0132, "actual": 0.0101, "above": -0.235},
        {"what": "training steps", "planned": 150, "actual": 150, "above": 0.0},
    ]
