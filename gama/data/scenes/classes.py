"""The sound classes that scenes are made of, and what is known about each.

One row is everything the generator, the questions and the answers need to know about a class: how it is named in a
sentence, whether single events can be counted, where it is heard and whether it means danger. No numpy, no torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Place = Literal["indoors", "outdoors", "either"]
Danger = Literal["none", "caution", "danger"]


@dataclass(frozen=True)
class SoundClass:
    """A class of sound a person recognises by ear.

    Attributes:
        label: the ESC-50 style name used in manifests and metrics (``crying_baby``).
        word: the one word that names the class (``baby``); one token of gama-mini's tokenizer.
        phrase: noun phrase for a list (``a baby crying``).
        clause: a whole sentence without its full stop (``A baby is crying``).
        unit: singular and plural of one countable event (``("bark", "barks")``), or None for a texture.
        place: where the sound is normally heard.
        danger: whether it warns of danger.
        advice: what to do on hearing it, an imperative sentence.
        names: other words people use for it in questions.
    """

    label: str
    word: str
    phrase: str
    clause: str
    unit: tuple[str, str] | None
    place: Place
    danger: Danger
    advice: str
    names: tuple[str, ...] = ()


_CALM = "No action is needed."

# fmt: off
CLASSES: tuple[SoundClass, ...] = (
    # animals
    SoundClass("dog", "dog", "a dog barking", "A dog is barking", ("bark", "barks"), "either", "none", _CALM,
               ("dog bark", "barking dog")),
    SoundClass("cat", "cat", "a cat meowing", "A cat is meowing", ("meow", "meows"), "indoors", "none", _CALM,
               ("meow", "meowing cat")),
    SoundClass("rooster", "rooster", "a rooster crowing", "A rooster is crowing", ("crow", "crows"), "outdoors",
               "none", _CALM, ("cockerel", "crowing rooster")),
    SoundClass("chirping_birds", "birds", "birds chirping", "Birds are chirping", None, "outdoors", "none", _CALM,
               ("bird", "birdsong")),
    SoundClass("crickets", "crickets", "crickets chirping", "Crickets are chirping", None, "outdoors", "none", _CALM,
               ("insects", "cicadas")),
    SoundClass("frog", "frog", "a frog croaking", "A frog is croaking", ("croak", "croaks"), "outdoors", "none",
               _CALM, ("toad", "croaking frog")),
    SoundClass("owl", "owl", "an owl hooting", "An owl is hooting", ("hoot", "hoots"), "outdoors", "none", _CALM,
               ("hooting owl",)),
    # people
    SoundClass("crying_baby", "baby", "a baby crying", "A baby is crying", ("cry", "cries"), "indoors", "caution",
               "Check on the baby.", ("crying", "infant")),
    SoundClass("sneezing", "sneeze", "a person sneezing", "A person is sneezing", ("sneeze", "sneezes"), "indoors",
               "none", _CALM, ("sneezing", "sneezing person")),
    SoundClass("snoring", "snoring", "a person snoring", "A person is snoring", ("snore", "snores"), "indoors",
               "none", _CALM, ("snore", "sleeping person")),
    SoundClass("applause", "applause", "people applauding", "People are applauding", None, "indoors", "none", _CALM,
               ("clapping", "audience")),
    SoundClass("footsteps", "footsteps", "footsteps", "Someone is walking", ("step", "steps"), "either", "none",
               _CALM, ("steps", "walking")),
    # the house
    SoundClass("clock_tick", "clock", "a clock ticking", "A clock is ticking", ("tick", "ticks"), "indoors", "none",
               _CALM, ("ticking", "watch")),
    SoundClass("door_knock", "knock", "knocking on a door", "Someone is knocking on a door", ("knock", "knocks"),
               "indoors", "none", "Open the door.", ("door knock", "knocking")),
    SoundClass("keyboard_typing", "typing", "typing on a keyboard", "Someone is typing on a keyboard", None,
               "indoors", "none", _CALM, ("keyboard", "keys")),
    SoundClass("glass_breaking", "glass", "glass breaking", "Glass is breaking", ("crash", "crashes"), "indoors",
               "danger", "Keep away from the broken glass.", ("breaking glass", "shattering glass")),
    SoundClass("telephone", "telephone", "a telephone ringing", "A telephone is ringing", ("ring", "rings"),
               "indoors", "none", "Answer the telephone.", ("phone", "ringing phone")),
    SoundClass("alarm", "alarm", "an alarm beeping", "An alarm is beeping", ("beep", "beeps"), "indoors", "danger",
               "Find out what set off the alarm and leave if there is smoke.", ("beeping", "smoke detector")),
    SoundClass("water_drops", "drops", "water dripping", "Water is dripping", ("drop", "drops"), "indoors", "none",
               "Close the tap.", ("dripping", "tap")),
    SoundClass("piano", "piano", "a piano playing", "A piano is playing", ("note", "notes"), "indoors", "none",
               _CALM, ("music", "piano music")),
    # the street
    SoundClass("siren", "siren", "a siren wailing", "A siren is wailing", None, "outdoors", "danger",
               "Make way for the emergency vehicle.", ("police siren", "ambulance")),
    SoundClass("car_horn", "horn", "a car horn honking", "A car horn is honking", ("honk", "honks"), "outdoors",
               "caution", "Watch out for traffic.", ("honking", "car")),
    SoundClass("church_bells", "bells", "church bells ringing", "Church bells are ringing", ("toll", "tolls"),
               "outdoors", "none", _CALM, ("bell", "ringing bells")),
    SoundClass("whistle", "whistle", "a whistle blowing", "A whistle is blowing", ("blow", "blows"), "outdoors",
               "none", _CALM, ("whistling", "referee")),
    SoundClass("gunshot", "gunshot", "a gun firing", "A gun is firing", ("shot", "shots"), "outdoors", "danger",
               "Take cover and call for help.", ("shooting", "gun")),
    # machines
    SoundClass("engine", "engine", "an engine running", "An engine is running", None, "outdoors", "caution",
               "Watch out for vehicles.", ("motor", "car engine")),
    SoundClass("helicopter", "helicopter", "a helicopter flying", "A helicopter is flying", None, "outdoors", "none",
               _CALM, ("rotor", "chopper")),
    SoundClass("airplane", "airplane", "an airplane flying over", "An airplane is flying over", None, "outdoors",
               "none", _CALM, ("plane", "jet")),
    SoundClass("chainsaw", "chainsaw", "a chainsaw running", "A chainsaw is running", None, "outdoors", "danger",
               "Keep a safe distance from the chainsaw.", ("saw", "power saw")),
    SoundClass("train", "train", "a train passing", "A train is passing", None, "outdoors", "caution",
               "Keep off the tracks.", ("railway", "locomotive")),
    # weather and nature
    SoundClass("rain", "rain", "rain falling", "Rain is falling", None, "outdoors", "none", "Take an umbrella.",
               ("rainfall", "raindrops")),
    SoundClass("wind", "wind", "wind blowing", "Wind is blowing", None, "outdoors", "none", _CALM,
               ("breeze", "gusts")),
    SoundClass("sea_waves", "waves", "sea waves", "Sea waves are breaking", None, "outdoors", "none", _CALM,
               ("sea", "ocean", "surf")),
    SoundClass("thunderstorm", "thunder", "thunder rumbling", "Thunder is rumbling", None, "outdoors", "danger",
               "Go inside and keep away from trees.", ("storm", "thunderstorm")),
    SoundClass("crackling_fire", "fire", "a fire crackling", "A fire is crackling", None, "either", "danger",
               "Make sure that the fire is under control.", ("flames", "crackling")),
)
# fmt: on

BY_LABEL: dict[str, SoundClass] = {c.label: c for c in CLASSES}
"""Every class by its label."""

ESC10: tuple[str, ...] = (
    "dog",
    "rain",
    "sea_waves",
    "crying_baby",
    "clock_tick",
    "sneezing",
    "helicopter",
    "chainsaw",
    "rooster",
    "crackling_fire",
)
"""The ten classes of ESC-10."""

ESC18: tuple[str, ...] = ESC10 + (
    "cat",
    "chirping_birds",
    "thunderstorm",
    "snoring",
    "glass_breaking",
    "siren",
    "car_horn",
    "church_bells",
)
"""ESC-10 and the eight further ESC-50 classes with openly licensed recordings."""
