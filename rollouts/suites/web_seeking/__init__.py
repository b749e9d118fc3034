"""Information seeking on the web: questions from the user's files, any search API, and pages fetched over HTTP."""
