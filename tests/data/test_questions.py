"""Questions about scenes: every answer true, every wording scored, yes and no in balance."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from gama.data.scenes.answers import QA, named, score
from gama.data.scenes.classes import BY_LABEL, CLASSES
from gama.data.scenes.questions import STAGE_TASKS, TASKS, ask, caption
from gama.data.scenes.scene import Event, Scene
from gama.data.scenes.symbolic import random_scene
from gama.data.scenes.transcript import VOCABULARY, danger, place, transcript
from gama.data.scenes.wording import DOES, PLURAL, off_topic

DOG = Event("dog", 1.2, 3.9, 3, -15.0, 600.0)
SIREN = Event("siren", 5.1, 9.0, 1, -35.0, 1500.0)
KNOCK = Event("door_knock", 5.0, 6.0, 2, -20.0, 400.0)
RAIN = Event("rain", 0.0, 10.0, 1, -45.0, 3000.0, role="background")
STREET = Scene(10.0, (DOG, SIREN, RAIN))
HOUSE = Scene(8.0, (KNOCK,))
SILENT = Scene(10.0, ())
NOISY = Scene(10.0, (), noise=True)

HEARD = "I hear a dog barking and a siren wailing."
TRUE_OF_STREET = {
    "what": {"A dog is barking, then a siren is wailing, with rain falling in the background."},
    "describe": {
        "A dog is barking from one to four seconds, then a siren is wailing from five to nine seconds, "
        "with rain falling in the background."
    },
    "presence": {"Yes, a dog is barking.", "Yes, a siren is wailing.", "Yes, rain is falling."},
    "count": {"I hear three barks."},
    "order": {
        "The dog comes first.",
        "The siren comes last.",
        "The siren comes after the dog.",
        "The dog comes before the siren.",
        "Nothing comes after the siren.",
        "Nothing comes before the dog.",
    },
    "time": {
        "The dog is heard from about one second on.",
        "The dog is heard until about four seconds.",
        "The dog is heard for about three seconds.",
        "The siren is heard from about five seconds on.",
        "The siren is heard until about nine seconds.",
        "The siren is heard for about four seconds.",
    },
    "loudness": {
        "The dog is louder.",
        "The siren is softer.",
        "The dog is the loudest.",
        "The siren is the softest.",
        "The dog is loud.",
        "The siren is soft.",
        "Yes, the dog is loud.",
        "No, the dog is loud.",
        "Yes, the siren is soft.",
        "No, the siren is soft.",
    },
    "pitch": {
        "The siren is higher.",
        "The dog is lower.",
        "The siren is the highest.",
        "The dog is the lowest.",
        "The dog is low.",
        "The siren is of middle pitch.",
    },
    "place": {
        "Probably outdoors: rain is falling.",
        "Yes, it is probably outdoors: rain is falling.",
        "No, it is probably outdoors: rain is falling.",
    },
    "danger": {
        "Yes, a siren is wailing. Make way for the emergency vehicle.",
        "No, a siren is wailing. Make way for the emergency vehicle.",
        "Make way for the emergency vehicle: a siren is wailing.",
    },
    "offtopic": {"I can only answer questions about the sound."},
}


def questions(scene: Scene, task: str, count: int = 300, seed: int = 0) -> list[QA]:
    rng = np.random.default_rng(seed)
    return [ask(scene, rng, tasks=(task,))[0] for _ in range(count)]


@pytest.mark.parametrize("task", sorted(TRUE_OF_STREET))
def test_every_answer_about_the_street_is_true(task: str) -> None:
    outputs = {qa.output for qa in questions(STREET, task, 1500)}
    denials = {o for o in outputs if re.search(r"^(No, t|T)here (is|are) no ", o)}
    assert outputs - denials <= TRUE_OF_STREET[task]
    assert len(outputs - denials) == len(TRUE_OF_STREET[task])  # and nothing true is left unsaid
    absent = {c.word for c in CLASSES} - {
        "dog",
        "siren",
        "rain",
        "alarm",
        "drops",
        "thunder",
    }  # the last three: doubtful
    for denial in denials:
        word = re.search(r"here (?:is|are) no (\w+); ", denial)
        assert word and word.group(1) in absent and denial.endswith(HEARD)


def test_one_event_is_told_in_one_sentence() -> None:
    assert {qa.output for qa in questions(HOUSE, "what")} == {"Someone is knocking on a door."}
    assert caption(Scene(9.0, (RAIN,))) == "Rain is falling."
    together = Scene(9.0, (replace(SIREN, start=1.3), DOG))
    assert caption(together) == "A siren is wailing and a dog is barking."


def test_a_single_sound_has_no_order() -> None:
    outputs = {qa.output for qa in questions(HOUSE, "order") if qa.form != "absent"}
    assert outputs == {"There is only one sound: knocking on a door."}


@pytest.mark.parametrize(("scene", "word"), [(SILENT, "silent"), (NOISY, "noise")])
def test_nothing_is_said_to_be_heard_where_nothing_is(scene: Scene, word: str) -> None:
    for qa in ask(scene, np.random.default_rng(1), 60):
        assert qa.task in ("silence", "offtopic")
        if qa.task == "silence":
            assert word in qa.output and qa.key == word and score(qa, qa.output)


def test_comparisons_asked_for_yes_or_no_are_told_the_fact() -> None:
    said = {(qa.form, qa.output, qa.key) for qa in questions(STREET, "order", 900) if qa.form == "earlier"}
    assert said == {("earlier", "The dog comes before the siren.", "dog")}
    for task, fact, key in (("loudness", "The dog is louder.", "dog"), ("pitch", "The siren is higher.", "siren")):
        said = {(qa.output, qa.key) for qa in questions(STREET, task, 900) if qa.form.endswith("yes/no")}
        assert said == {(fact, key)}


def test_place_and_danger_answers_fit_their_questions() -> None:
    for qa in questions(STREET, "place", 600):
        outdoors = bool(re.search(r"outdoors|outside", qa.instruction.lower()))
        assert qa.key == (("yes" if outdoors else "no") if qa.form == "yes/no" else "outdoors"), qa
    for qa in questions(STREET, "danger", 600):
        if qa.form != "advice":
            asks_safe = bool(re.search(r"\b(safe|fine|ok)\b", qa.instruction.lower().removeprefix("ok, ")))
            assert qa.key == ("no" if asks_safe else "yes"), qa


def test_presence_questions_ask_for_what_they_answer() -> None:
    for qa in questions(STREET, "presence", 1500):
        asked = named(qa.instruction)
        if asked:  # a few names are left out of answers because they are ordinary words
            assert qa.key == ("yes" if asked[0] in ("dog", "siren", "rain") else "no"), qa


def test_random_scenes_give_answers_that_score_right() -> None:
    rng = np.random.default_rng(5)
    tasks: Counter[str] = Counter()
    for _ in range(600):
        scene = random_scene(rng)
        for qa in ask(scene, rng, 8):
            tasks[qa.task] += 1
            assert score(qa, qa.output), qa
            assert "{" not in qa.instruction + qa.output
            assert qa.output[0].isupper() and qa.output.endswith(".")
            assert not re.search(r"\b(is|was|does|comes) (the )?(birds|crickets|waves|bells|drops)\b", qa.instruction)
    assert set(tasks) == set(TASKS)


@pytest.mark.parametrize(
    ("task", "form"),
    [("presence", ""), ("place", "yes/no")],
)
def test_yes_and_no_are_balanced(task: str, form: str) -> None:
    rng = np.random.default_rng(7)
    keys: Counter[str] = Counter()
    while sum(keys.values()) < 600:
        qa = ask(random_scene(rng), rng, tasks=(task,))[0]
        if qa.task == task and (not form or qa.form == form):
            keys[qa.key] += 1
    assert set(keys) == {"yes", "no"}
    assert 0.42 < keys["yes"] / 600 < 0.58  # four standard deviations


def test_questions_are_varied_and_deterministic() -> None:
    first = ask(STREET, np.random.default_rng(3), 8)
    assert first == ask(STREET, np.random.default_rng(3), 8)
    assert first != ask(STREET, np.random.default_rng(4), 8)
    assert len({qa.instruction.lower() for qa in first}) == 8
    assert len({qa.task for qa in first}) >= 4
    for task in set(TASKS) - {"silence"}:
        wordings = {qa.instruction.lower().rstrip("?.! ") for qa in questions(STREET, task, 400)}
        assert len(wordings) >= 15, (task, wordings)
    rng = np.random.default_rng(0)
    assert len({off_topic(rng) for _ in range(4000)}) > 500


@pytest.mark.parametrize("count", [1, 50])
@pytest.mark.parametrize("scene", [STREET, HOUSE, SILENT, NOISY, Scene(4.0, (RAIN,))])
def test_as_many_questions_as_asked_for(scene: Scene, count: int) -> None:
    for tasks in ((t,) for t in TASKS):
        assert len(ask(scene, np.random.default_rng(0), count, tasks=tasks)) == count


def test_stages_ask_only_their_tasks() -> None:
    rng = np.random.default_rng(2)
    for stage, tasks in STAGE_TASKS.items():
        asked = {qa.task for _ in range(150) for qa in ask(random_scene(rng), rng, 4, tasks=tasks)}
        assert asked - {"silence"} <= set(tasks), stage
    with pytest.raises(ValueError, match="unknown tasks"):
        ask(STREET, rng, tasks=("smell",))


def qa_of(key: str, kind: str, **more: object) -> QA:
    return QA("?", "", "what", key, kind, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("qa", "right", "wrong"),
    [
        (qa_of("dog", "classes"), "I hear a barking dog", "A cat is meowing."),
        (qa_of("dog", "classes"), "Dogs!", "A dog is barking, then a cat is meowing."),
        (qa_of("dog,siren", "classes", also=("rain",)), "A siren and a dog in the rainfall.", "A dog is barking."),
        (qa_of("applause", "classes"), "People are applauding.", "People are talking."),
        (qa_of("horn", "classes"), "A car horn is honking.", "An engine is running."),
        (qa_of("siren", "class"), "The siren comes after the dog.", "The dog comes before the siren."),
        (qa_of("yes", "word", choices=("yes", "no")), "Yes, a dog is barking.", "No, there is no dog."),
        (qa_of("no", "word", choices=("yes", "no")), "There is no dog.", "Yesterday it rained."),
        (qa_of("outdoors", "word", choices=("indoors", "outdoors")), "It is outside.", "Probably indoors."),
        (qa_of("three", "number"), "I hear 3 barks.", "I hear two barks, not three."),
        (qa_of("one", "number"), "One bark.", "None."),
        (qa_of("two", "seconds", value=2.4), "At about 3 seconds.", "At four seconds."),
        (qa_of("two", "seconds", value=2.4), "From 1.5 s on", "It is early."),
        (qa_of("open the door", "phrase"), "Open the door: ...", "Open your door."),
    ],
)  # fmt: skip
def test_score_tells_right_from_wrong(qa: QA, right: str, wrong: str) -> None:
    assert score(qa, right)
    assert not score(qa, wrong)
    assert not score(qa, "")


def test_every_class_is_recognised_in_its_own_words() -> None:
    for c in CLASSES:
        assert named(c.clause + ".") == (c.label,)
        assert named(f"I hear {c.phrase} here") == (c.label,)
        assert named(f"The {c.word} is louder.") == (c.label,)
    assert set(DOES) == {c.label for c in CLASSES if c.unit}
    assert {c.word for c in CLASSES} >= PLURAL


def test_place_and_danger_follow_their_rules() -> None:
    cat = Event("cat", 1.0, 2.0, 1, -20.0, 900.0)
    assert place(Scene(10.0, (cat,))) == "indoors"
    assert place(Scene(10.0, (cat, SIREN))) == "unknown"
    assert place(Scene(10.0, (cat, SIREN, RAIN))) == "outdoors"
    assert place(Scene(10.0, (DOG,))) == place(SILENT) == "unknown"
    assert danger(STREET) == "danger"
    assert danger(Scene(10.0, (DOG, Event("crying_baby", 4.0, 5.0, 0, -20.0, 900.0)))) == "caution"
    assert danger(HOUSE) == danger(SILENT) == "safe"


def test_a_transcript_says_everything_in_its_place() -> None:
    words = transcript(STREET)
    assert words[:7] == ["dog", "three", "one", "four", "three", "loud", "low"]
    assert words[7:14] == ["siren", "some", "five", "nine", "four", "soft", "middle"]
    assert words[14:21] == ["none"] * 7
    assert words[21:25] == ["rain", "two", "outdoors", "danger"]
    assert words[25:32] == ["dog", "siren", "siren", "dog", "siren", "siren", "sound"]
    assert words[32] == "rain" and words[32 + 10] == "dog" and words[32 + 40] == "siren"
    assert words[-1] == "end"
    assert transcript(SILENT)[32:-1] == ["quiet"] * 63
    assert set(transcript(NOISY)[32:-1]) == {"noise"}
    both = transcript(Scene(10.24, (DOG, replace(SIREN, start=2.0))))[32 + 15 : 32 + 20]
    assert both == ["siren", "dog", "siren", "dog", "siren"]
    assert transcript(replace(HOUSE, duration=1.6))[32 + 10 :] == ["end"] * 54


def test_transcripts_have_96_known_words() -> None:
    rng = np.random.default_rng(11)
    kinds: Counter[int] = Counter()
    for _ in range(500):
        scene = random_scene(rng)
        words = transcript(scene)
        assert len(words) == 96
        assert set(words) <= set(VOCABULARY)
        assert all(0.0 <= e.start < e.end <= scene.duration and e.label in BY_LABEL for e in scene.events)
        kinds[len(scene.foreground)] += 1
    assert min(kinds[1], kinds[2]) > kinds[3] > 60


def test_a_crowded_scene_still_fits() -> None:
    events = tuple(Event("dog", float(t), t + 0.9, 9, -20.0, 900.0) for t in range(6))
    words = transcript(Scene(10.0, events))
    assert len(words) == 96
    assert words[1] == words[22] == "many"
    assert all(score(qa, qa.output) for qa in ask(Scene(10.0, events), np.random.default_rng(0), 20))
