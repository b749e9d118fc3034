"""`rollouts.web.page_text` with smaller limits, as the process that reads a page."""

from rollouts.web import page_text

page_text.CPU_SECONDS, page_text.MEMORY = 2, 1 << 29

if __name__ == "__main__":
    page_text.main()
