"""Operations on streams and durables, for setup() and for migrations."""
