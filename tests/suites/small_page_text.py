"""`rollouts.web.page_text` with a smaller limit, as the process that reads a page."""

from rollouts.web import page_text

page_text.CPU_SECONDS = 2

if __name__ == "__main__":
    page_text.main()
