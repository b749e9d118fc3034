"""Information seeking: a world of documents about invented entities, drawn from a seed, and questions with known answers and plans."""
