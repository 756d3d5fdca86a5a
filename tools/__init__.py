"""Programs that set a checkout up and check it, for ``make``; they run on any Python and know nothing of the site."""
