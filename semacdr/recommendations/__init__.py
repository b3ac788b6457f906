"""What other systems read: recommendations, user vectors and item vectors."""

from semacdr.recommendations.publish import recommend_all

__all__ = ["recommend_all"]
