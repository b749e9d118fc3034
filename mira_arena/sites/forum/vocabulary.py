"""The closed vocabulary of the forum. All generated names consist of these words."""

TOPICS = {
    "gardening": ("tomato", "rose", "hedge", "pumpkin", "fern"),
    "cooking": ("soup", "loaf", "curry", "pie", "sauce"),
    "cycling": ("saddle", "wheel", "helmet", "chain", "pedal"),
    "camping": ("tent", "stove", "hammock", "backpack", "tarp"),
    "music": ("guitar", "piano", "drum", "violin", "flute"),
    "painting": ("canvas", "brush", "easel", "portrait", "mural"),
    "fishing": ("rod", "boat", "lure", "net", "reel"),
    "knitting": ("scarf", "sweater", "sock", "mitten", "shawl"),
    "birding": ("robin", "heron", "feeder", "nest", "finch"),
    "pottery": ("vase", "jug", "kiln", "glaze", "tile"),
}
"""Community to the nouns of its threads. No noun is in two communities, so their titles differ."""
ADJECTIVES = (
    "small", "big", "cheap", "new", "simple", "strange", "perfect", "tiny", "bright", "dark", "heavy", "light", "plain", "lovely", "rare",
    "wide",
)  # fmt: skip
TITLES = (
    "my first {adjective} {noun}", "help with a {adjective} {noun}", "a {adjective} {noun} for beginners", "is this {noun} too {adjective}",
    "how to get a {adjective} {noun}", "looking for a {adjective} {noun}", "photos of a {adjective} {noun}",
    "why i like a {adjective} {noun}",
)  # fmt: skip
OPENINGS = (
    "found it at a market last week", "i tried this for a month", "a friend gave me one", "it took the whole weekend", "this is my third",
    "i read about it in a book", "nobody here talks about this", "i was not sure at first",
)  # fmt: skip
QUESTIONS = (
    "what do you think", "any advice is welcome", "would you do the same", "please tell me more", "has anyone tried it",
    "i hope this helps", "ask me anything", "is it worth the money",
)  # fmt: skip
COMMENTS = (
    "this worked for me", "i would try a smaller one", "thanks for sharing", "mine broke after a week", "have a look at the guide",
    "not so sure about that", "that looks great", "i asked the same last year", "try it with less water", "you can find it for less",
    "wait until spring", "same here", "a good idea", "it depends on the weather", "please post more of this", "i disagree",
)  # fmt: skip
MESSAGES = (
    "are you coming to the meeting", "thanks for the advice", "may i use your photo", "your thread was a great help",
    "can you send me the guide", "where did you buy it", "please have a look at my thread", "would you like to trade",
    "do you still have the old one", "shall we meet on sunday",
)  # fmt: skip
NOTES = (
    "please come to the meeting on sunday", "thank you for your help", "may i write a guide about this", "i will answer tomorrow",
    "can we talk about the rules", "your photo is on the front page", "i am looking for a partner", "would you like to help us",
)  # fmt: skip
"""Texts that a task may ask to send to a member. No initial message contains them."""
DESCRIPTIONS = (
    "all about the {first} and the {second}", "a quiet place for friends of the {first}", "questions and answers on every {first}",
    "show your {first} and ask about your {second}", "from the first {first} to the last {second}", "no {first} is too small for us",
)  # fmt: skip
RULES = (
    "be kind", "no spam", "stay on topic", "one thread a day", "no photos of people", "use a clear title", "search before you ask",
    "no links to shops",
)  # fmt: skip
FLAIRS = ("question", "photo", "guide", "news", "story", "solved")
REASONS = ("spam", "rude", "off topic", "repost")
"""Reasons for reports and removals."""
MOODS = ("quiet", "brave", "lucky", "sunny", "gentle", "clever", "merry", "swift", "mild", "golden", "silver", "proud")
ANIMALS = ("fox", "hare", "otter", "badger", "moose", "panda", "tiger", "wolf", "seal", "camel", "lynx", "mole")
"""The name of a member is a mood and an animal."""
LINKS = ("maple", "pebble", "harbour", "meadow", "lantern", "willow")
PASSWORDS = ("river", "maple", "pebble", "harvest", "meadow", "thunder", "willow", "ember")
MONTHS = ("january", "february", "march", "april", "may", "june", "july", "august", "september", "october", "november", "december")
