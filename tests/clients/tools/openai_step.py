"""Prints the ids of all models, by OpenAI's own SDK and its own variables."""

from openai import OpenAI

for model in OpenAI().models.list():
    print(model.id)
