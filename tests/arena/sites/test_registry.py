"""The table of sites agrees with what the applications say of themselves."""

from mira_arena.sites.registry import APPLICATIONS, SITES, application


def test_the_table_names_every_site_of_every_application():
    made = [application(name) for name in APPLICATIONS]
    assert [app.name for app in made] == list(APPLICATIONS)
    assert {site: app.name for app in made for site in app.sites} == SITES
