"""How people word their questions about a sound: templates for every task.

``{a}`` and ``{bare}`` name a class with and without its article, ``{phrase}`` as in a list, ``{the_x}`` and
``{the_y}`` with the definite article; ``{units}`` are its single sounds and ``{does}`` asks for them as a clause.
"""

from __future__ import annotations

WHAT: tuple[str, ...] = (
    "what do you hear?",
    "what can you hear?",
    "what sound is this?",
    "what is this sound?",
    "what's this sound?",
    "what is that?",
    "what happened?",
    "what is happening?",
    "what's going on?",
    "what is going on in this clip?",
    "what is in this recording?",
    "what is in the audio?",
    "what sounds are in this clip?",
    "which sounds do you hear?",
    "which sounds are there?",
    "what is making this noise?",
    "what makes this sound?",
    "name the sound.",
    "name all sounds.",
    "list the sounds you hear.",
    "list all the sounds in the audio.",
    "identify the sound.",
    "tell me what you hear.",
    "write an audio caption describing the sound.",
    "write a caption for this audio.",
    "caption this clip.",
    "classify the sound events in the audio clip.",
    "what events happen, and in what order?",
    "what can be heard in the audio?",
    "what am I hearing?",
)

DESCRIBE: tuple[str, ...] = (
    "describe the audio.",
    "describe the sound.",
    "describe this clip in detail.",
    "describe what you hear in detail.",
    "describe the recording.",
    "describe the scene.",
    "describe the audio in detail.",
    "give me a detailed description of the audio.",
    "give a detailed description.",
    "tell me everything about this clip.",
    "explain in detail what happens.",
    "what happens and when?",
    "summarize the clip with times.",
    "can you describe it?",
)

PRESENCE: tuple[str, ...] = (
    "is there {a}?",
    "is there {a} in the audio?",
    "is there {a} in this clip?",
    "can you hear {a}?",
    "do you hear {a}?",
    "do you hear {phrase}?",
    "can you hear {phrase}?",
    "is {phrase} in this recording?",
    "is {a} present?",
    "does the clip contain {a}?",
    "does it contain {phrase}?",
    "is this {a}?",
    "is it {a}?",
    "is that {phrase}?",
    "did you hear {a}?",
    "any {bare}?",
    "{bare}?",
    "is the sound of {a} in here?",
    "I think I hear {a}, right?",
)

COUNT: tuple[str, ...] = (
    "how many {units} are there?",
    "how many {units} do you hear?",
    "how many {units} can you hear?",
    "how many {units}?",
    "how many {units} are in the clip?",
    "count the {units}.",
    "what is the number of {units}?",
    "how many times {does}?",
    "how many times {does} in the clip?",
    "how often {does}?",
    "tell me how many {units} you hear.",
    "number of {units}?",
)

COUNT_SOUNDS: tuple[str, ...] = (
    "how many sounds are there?",
    "how many different sounds do you hear?",
    "how many sound events are in the clip?",
    "how many kinds of sound can you hear?",
    "count the different sounds.",
)

FIRST: tuple[str, ...] = (
    "what came first?",
    "what comes first?",
    "which sound is first?",
    "what do you hear first?",
    "what is the first sound?",
    "what happened first?",
    "what does the clip start with?",
    "which came first, {the_x} or {the_y}?",
    "which sound starts first?",
    "what was the first thing you heard?",
)

LAST: tuple[str, ...] = (
    "what came last?",
    "what comes last?",
    "which sound is last?",
    "what do you hear last?",
    "what is the last sound?",
    "what happened at the end?",
    "what happened last?",
    "what is the final sound?",
    "which sound starts last?",
)

AFTER: tuple[str, ...] = (
    "what came after {the_x}?",
    "what comes after {the_x}?",
    "what happens after {the_x}?",
    "what do you hear after {the_x}?",
    "which sound follows {the_x}?",
    "what follows {the_x}?",
    "after {the_x}, what do you hear?",
    "what is the next sound after {the_x}?",
)

BEFORE: tuple[str, ...] = (
    "what came before {the_x}?",
    "what comes before {the_x}?",
    "what happens before {the_x}?",
    "what do you hear before {the_x}?",
    "which sound precedes {the_x}?",
    "before {the_x}, what do you hear?",
    "what was heard just before {the_x}?",
)

ORDER_YES_NO: tuple[str, ...] = (
    "did {the_x} come before {the_y}?",
    "does {the_x} come before {the_y}?",
    "is {the_x} before {the_y}?",
    "do you hear {the_x} before {the_y}?",
    "is {the_x} heard before {the_y}?",
    "was {the_x} earlier than {the_y}?",
    "did {the_y} come after {the_x}?",
    "does {the_y} come after {the_x}?",
    "is {the_y} after {the_x}?",
    "is {the_y} heard after {the_x}?",
)
"""All ask whether x is earlier than y."""

START: tuple[str, ...] = (
    "when does {the_x} start?",
    "when did {the_x} start?",
    "when does {the_x} begin?",
    "when do you hear {the_x}?",
    "when is {the_x} heard?",
    "at what time does {the_x} start?",
    "at which second does {the_x} begin?",
    "after how many seconds does {the_x} start?",
    "what is the start time of {the_x}?",
    "where in the clip does {the_x} start?",
)

STOP: tuple[str, ...] = (
    "when does {the_x} stop?",
    "when did {the_x} stop?",
    "when does {the_x} end?",
    "at what time does {the_x} end?",
    "at which second does {the_x} stop?",
    "what is the end time of {the_x}?",
    "until when do you hear {the_x}?",
    "when is {the_x} over?",
)

LENGTH: tuple[str, ...] = (
    "how long is {the_x}?",
    "how long does {the_x} last?",
    "how long do you hear {the_x}?",
    "for how long is {the_x} heard?",
    "how many seconds does {the_x} last?",
    "what is the duration of {the_x}?",
    "how long does {the_x} go on?",
    "how many seconds of {the_x} are there?",
)

LOUDER: tuple[str, ...] = (
    "which is louder, {the_x} or {the_y}?",
    "what is louder, {the_x} or {the_y}?",
    "is {the_x} or {the_y} louder?",
    "which one is louder: {the_x} or {the_y}?",
    "{the_x} or {the_y}, which is louder?",
)

SOFTER: tuple[str, ...] = (
    "which is softer, {the_x} or {the_y}?",
    "which is quieter, {the_x} or {the_y}?",
    "what is quieter, {the_x} or {the_y}?",
    "is {the_x} or {the_y} softer?",
    "which one is quieter: {the_x} or {the_y}?",
)

LOUDEST: tuple[str, ...] = (
    "which sound is the loudest?",
    "which sound is louder?",
    "what is the loudest sound?",
    "what is loudest?",
    "which is the loudest?",
    "what sound is the loudest in the clip?",
)

SOFTEST: tuple[str, ...] = (
    "which sound is the softest?",
    "which sound is the quietest?",
    "which sound is quieter?",
    "what is the quietest sound?",
    "which is the softest?",
)

LOUDER_YES_NO: tuple[str, ...] = (
    "is {the_x} louder than {the_y}?",
    "is {the_y} quieter than {the_x}?",
    "is {the_y} softer than {the_x}?",
    "do you hear {the_x} louder than {the_y}?",
)
"""All ask whether x is louder than y."""

HOW_LOUD: tuple[str, ...] = (
    "how loud is {the_x}?",
    "is {the_x} loud or soft?",
    "is {the_x} loud or quiet?",
    "what is the loudness of {the_x}?",
    "what is the volume of {the_x}?",
)

IS_LOUD: tuple[str, ...] = ("is {the_x} loud?", "is {the_x} very loud?", "does {the_x} sound loud?")
IS_SOFT: tuple[str, ...] = ("is {the_x} soft?", "is {the_x} quiet?", "does {the_x} sound soft?")

HIGHER: tuple[str, ...] = (
    "which is higher, {the_x} or {the_y}?",
    "which has the higher pitch, {the_x} or {the_y}?",
    "which is higher in pitch, {the_x} or {the_y}?",
    "what is higher, {the_x} or {the_y}?",
    "is {the_x} or {the_y} higher?",
)

LOWER: tuple[str, ...] = (
    "which is lower, {the_x} or {the_y}?",
    "which has the lower pitch, {the_x} or {the_y}?",
    "which is lower in pitch, {the_x} or {the_y}?",
    "what is deeper, {the_x} or {the_y}?",
    "is {the_x} or {the_y} lower?",
)

HIGHEST: tuple[str, ...] = (
    "which sound has the highest pitch?",
    "which sound is the highest?",
    "which sound is higher?",
    "what is the highest sound?",
    "which sound has the higher pitch?",
)

LOWEST: tuple[str, ...] = (
    "which sound has the lowest pitch?",
    "which sound is the lowest?",
    "which sound is lower?",
    "what is the deepest sound?",
    "which sound has the lower pitch?",
)

HIGHER_YES_NO: tuple[str, ...] = (
    "is {the_x} higher than {the_y}?",
    "is {the_x} higher in pitch than {the_y}?",
    "does {the_x} have a higher pitch than {the_y}?",
    "is {the_y} lower than {the_x}?",
)
"""All ask whether x is higher than y."""

HOW_HIGH: tuple[str, ...] = (
    "is {the_x} high or low?",
    "is the pitch of {the_x} high or low?",
    "how high is {the_x}?",
    "what is the pitch of {the_x}?",
    "does {the_x} sound high or low?",
)

PLACE: tuple[str, ...] = (
    "where was this recorded?",
    "where was the clip recorded?",
    "where is this?",
    "where are we?",
    "where am I?",
    "is this indoors or outdoors?",
    "indoors or outdoors?",
    "is it inside or outside?",
    "inside or outside?",
    "was this recorded indoors or outdoors, and why?",
    "what place is this?",
    "in what kind of place was this recorded?",
    "where could this sound come from?",
    "what is the environment?",
)

IS_OUTDOORS: tuple[str, ...] = (
    "is this outdoors?",
    "is it outside?",
    "was this recorded outdoors?",
    "are we outside?",
)
IS_INDOORS: tuple[str, ...] = (
    "is this indoors?",
    "is it inside?",
    "was this recorded indoors?",
    "are we inside a building?",
)

DANGER: tuple[str, ...] = (
    "is there danger?",
    "is there any danger?",
    "is it dangerous?",
    "is this dangerous?",
    "am I in danger?",
    "is something dangerous going on?",
    "should I be worried?",
    "should I worry?",
    "is this an emergency?",
    "do I need to be careful?",
    "does this sound mean danger?",
    "is there a reason to be alarmed?",
)

SAFE: tuple[str, ...] = ("is it safe?", "is it safe here?", "am I safe?", "is everything fine?", "is everything ok?")

ADVICE: tuple[str, ...] = (
    "what should I do?",
    "what should one do?",
    "what do I do now?",
    "what should I do when I hear this?",
    "what should you do in this situation?",
    "what would you do?",
    "how should I react?",
    "how should one react to this sound?",
    "what action is needed?",
    "what is the right thing to do?",
    "do I have to do something?",
    "any advice?",
)
