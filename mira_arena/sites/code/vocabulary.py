"""The closed vocabulary of the code host. All generated names consist of these words."""

FIRST_NAMES = (
    "ada", "ben", "clara", "dan", "emma", "finn", "grace", "hugo", "ida", "jonas", "kate", "leo",
    "mia", "nina", "otto", "paul", "rosa", "sam", "tess", "vera", "will", "zoe",
)  # fmt: skip
LAST_NAMES = ("stone", "marsh", "field", "brook", "wood", "hart", "lane", "frost", "dale", "reed")
GROUPS = ("orchard", "harbor", "lantern", "meadow", "granite", "willow", "compass", "beacon", "cedar", "summit")
PROJECT_KINDS = ("paper", "silver", "tide", "river", "pocket", "quiet", "cloud", "garden", "amber", "night", "island", "desert")
PROJECT_NOUNS = ("clock", "map", "ledger", "radio", "kitchen", "parser", "mailer", "planner", "viewer", "bridge")
TOPICS = ("maps", "weather", "music", "food", "travel", "tools", "games", "money", "health", "books")
ADJECTIVES = ("small", "simple", "fast", "friendly", "modern", "plain")
VISIBILITIES = ("private", "public")

SETTINGS = {
    "port": ("3000", "5000", "8000", "8080", "9000"),
    "theme": ("light", "dark", "warm", "plain"),
    "limit": ("10", "20", "50", "100", "200"),
    "timeout": ("5", "15", "30", "60", "90"),
    "language": ("english", "french", "german", "spanish"),
    "colour": ("red", "green", "blue", "grey"),
}
"""Keys of a config file to their possible values."""
CONFIG_FILES = ("config.txt", "settings.txt", "options.txt", "defaults.txt")
OTHER_FILES = {
    "notes.md": ("keep it small", "write tests first", "ask before you merge", "one change at a time", "check the menu again"),
    "docs/guide.md": ("open the page", "press the button", "read the table", "save your work", "close the window"),
    "tests/list.txt": ("menu test", "login test", "search test", "report test", "export test"),
    "tasks.txt": ("build", "check", "pack", "deploy", "clean"),
}
"""File to its possible lines."""

VERBS = ("fix", "remove", "add", "check", "rename", "explain", "test")
STATES_OF_THINGS = ("broken", "slow", "old", "missing", "wrong", "empty")
THINGS = ("menu", "login", "button", "page", "table", "header", "icon", "link", "report", "search", "footer", "export")
"""Nouns of titles and branches: an issue is titled `fix the slow menu`, a branch `fix-menu`."""
DESCRIPTIONS = (
    "it happens every time", "seen since the last release", "please have a look", "it only happens at night", "steps are in the notes",
)  # fmt: skip
COMMENTS = (
    "thank you for the report", "i can see this too", "please add a test", "this works for me now", "let us do this soon",
    "we talked about this today", "it is on my list", "good idea",
)  # fmt: skip
COMMITS = (
    "add tests", "fix a typo", "update the notes", "clean up", "rename files", "improve speed", "remove old code", "sort the list",
    "check the input", "explain the options",
)  # fmt: skip
LABELS = ("bug", "docs", "feature", "question", "urgent", "design")
MILESTONE_KINDS = ("spring", "summer", "autumn", "winter", "first", "second")
MILESTONE_NOUNS = ("release", "sprint", "cleanup", "review")
PIPELINES = ("passed", "failed", "canceled")
ROLES = ("guest", "reporter", "developer", "maintainer", "owner")
"""Roles in increasing order of permissions. Each includes the permissions of those before it."""
STATUSES = ("on holiday", "busy this week", "out for lunch", "in a meeting", "working from home", "reviewing all day")
