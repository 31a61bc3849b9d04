"""The six stage pipelines; families compose them and none of them knows a family."""
