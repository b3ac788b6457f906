"""What other systems read: recommendations, user vectors and item vectors; and the same for a history just given."""

from semacdr.recommendations.last import Last
from semacdr.recommendations.publish import Run, recommend_all
from semacdr.recommendations.recommender import Recommendation, Recommender

__all__ = ["Last", "Recommendation", "Recommender", "Run", "recommend_all"]
