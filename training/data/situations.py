"""Sentences made by rule of what is said of meals, things bought, services and journeys.

What praises or blames here is what happened, an understatement or a "great" that is not meant: no
single word tells. training/data/contrast.py has negation and contrast.
"""

from __future__ import annotations

import random

from training.data.sentiment import NEGATIVE, POSITIVE, Example

THINGS = (
    "burger", "steak", "pasta", "curry", "dessert", "wine", "menu", "waitress", "chef", "bakery",
    "phone", "battery", "laptop", "charger", "blender", "keyboard", "jacket", "mattress", "kettle",
    "printer", "watch", "backpack", "app", "website", "delivery", "parcel", "support", "refund",
    "flight", "train", "taxi", "garage", "dentist", "gym", "museum", "apartment", "shower", "bed",
    "game", "series", "episode", "trailer", "lesson", "teacher", "party", "weather", "neighbour",
)  # fmt: skip

# Understatements. One list praises and the other blames, whatever the {thing}.
_MILD_PRAISE = (
    "not half bad, this {thing}", "not bad for a {thing}",
    "you could do a lot worse than this {thing}", "the {thing} could have been much worse",
    "i can't complain about the {thing}", "there was nothing to complain about",
    "no complaints about the {thing}", "the {thing} was no disappointment",
    "the {thing} did not disappoint", "the {thing} has never let me down",
    "i was not disappointed by the {thing}", "you won't regret this {thing}",
    "the {thing} leaves nothing to be desired", "there are worse ways to spend an evening",
    "i do not regret a single cent", "i would not change a thing about the {thing}",
    "the {thing} is not to be missed", "we had no reason to be unhappy",
    "i wouldn't mind having that {thing} again", "nothing went wrong with the {thing}",
    "i would not swap the {thing} for any other", "i didn't want the {thing} to end",
    "it was impossible not to smile", "i have no fault to find with the {thing}",
    "the {thing} was not a waste of money", "not once did the {thing} let us down",
    "it doesn't get much better than this", "never had a better {thing}",
    "the {thing} was better than i had hoped", "the {thing} is hard to beat",
    "i could not put it down", "we couldn't have wished for more",
)  # fmt: skip
_MILD_BLAME = (
    "the {thing} is nothing special", "the {thing} was nothing to write home about",
    "the {thing} could have been better", "i have had better",
    "i had hoped for more from the {thing}", "the {thing} leaves a lot to be desired",
    "i wasn't impressed by the {thing}", "the {thing} was not worth the money",
    "the {thing} is not worth the wait", "nobody will miss this {thing}",
    "there are better ways to spend an evening", "the {thing} did not live up to its name",
    "you would have to pay me to take that {thing} again", "not my idea of a {thing}",
    "hardly a masterpiece", "the {thing} was no pleasure", "the {thing} does not do what it should",
    "i will not be coming back", "we won't order the {thing} again",
    "no one needs a {thing} like that", "i can't say that i liked the {thing}",
    "i didn't care for the {thing}", "the {thing} never got going", "it was not what we paid for",
    "the {thing} didn't work for me", "the {thing} has seen better days",
    "the {thing} was not ready for sale", "i couldn't wait for it to be over",
    "i could not finish the {thing}", "no thanks, one {thing} like that is enough",
    "the {thing} isn't what it used to be", "i expected more for that price",
)  # fmt: skip

# What happened, said without a word of judgement.
_LUCK = (
    "the {thing} arrived two days early", "the {thing} works like new",
    "i would buy the {thing} again", "we will come back next year", "the {thing} made my day",
    "they replaced the {thing} at once", "the {thing} still runs after five years",
    "i have told all my friends about the {thing}", "we stayed until they closed",
    "they gave us a free dessert", "my kids ask for it every week",
    "the waiter remembered our names", "they answered within a minute", "i laughed until i cried",
    "the {thing} fits like a glove", "setting up the {thing} took two minutes",
    "the money was back on my account the same day", "i watched it twice in a row",
    "we finished every last crumb", "the {thing} saved me hours of work",
    "i would give it ten stars", "the {thing} is worth every penny",
    "they went out of their way to help us", "i slept like a baby",
    "everything was ready when we came", "i can't live without it any more",
    "they upgraded our room for nothing", "the {thing} runs all day on one charge",
    "my grandmother asked for the recipe", "i bought a second one for my sister",
    "they fixed the {thing} while i waited", "it runs as smoothly as on the first day",
    "we had the best seats in the house", "i learnt more in an hour than in a year of school",
    "the staff could not do enough for us", "the {thing} came with everything i needed",
    "i wish that every {thing} was like this one", "the {thing} won me over in minutes",
    "thank you for the {thing}, we loved it", "i'm so glad that we chose this {thing}",
)  # fmt: skip
_MISHAPS = (
    "the {thing} arrived in pieces", "i want my money back", "they forgot our order twice",
    "we waited an hour for the bill", "the {thing} never arrived", "nobody answered the phone",
    "the screen cracked on the second day", "i fell asleep half way through",
    "there was a hair in my soup", "they charged us twice", "we left before the end",
    "the {thing} stopped working the day after", "i sent the {thing} back",
    "the {thing} fell apart in my hands", "half of the parts were missing",
    "the lights went out and nobody came", "the {thing} smelled of smoke",
    "we were ill for two days", "the waiter rolled his eyes at us",
    "they never replied to my letters", "it crashes every time i open it",
    "the battery dies before noon", "the instructions make no sense",
    "i was put on hold for forty minutes", "two hours of my life that i will not get back",
    "the {thing} was cancelled without a word", "they lost my luggage", "the {thing} leaks",
    "the neighbours kept us awake all night", "never again", "avoid this {thing}",
    "save your money and skip the {thing}", "the {thing} ruined our evening",
    "the bed had stains on it", "they sent the wrong {thing} and blamed me",
    "the price doubled over night", "the {thing} is a rip-off",
    "my {thing} has been in repair three times", "they refused to give me a refund",
)  # fmt: skip

_OPENERS = (
    "great", "oh great", "just great", "wonderful", "fantastic", "lovely", "brilliant", "perfect",
    "how nice", "how lovely", "super", "marvellous", "oh joy", "hooray",
)  # fmt: skip
_BAD_NEWS = (
    "delay", "broken {thing}", "punctured tyre", "cold {thing}", "bill",
    "fee that nobody mentioned", "hour in the queue", "power cut", "error message",
    "update that breaks everything", "form to fill in", "wrong order", "rainy weekend",
    "cancelled {thing}", "traffic jam", "lost parcel", "{thing} that does not work",
    "night without sleep", "headache", "day without hot water", "burnt {thing}", "excuse",
    "spam call", "crash", "parking ticket", "sequel that nobody asked for",
    "{thing} with a hole in it", "stain on my shirt", "week of waiting", "password to reset",
)  # fmt: skip
_GOOD_NEWS = (
    "free dessert", "sunny day", "free upgrade", "day off", "table by the window", "discount",
    "win for our team", "week of holiday", "{thing} that just works", "smile from the chef",
    "parcel from my sister", "evening with friends", "season of my favourite series",
    "{thing} from my favourite shop", "gift", "good laugh", "round of applause", "trip to the sea",
    "perfect {thing}", "hot meal after a long day", "job well done", "happy customer",
)  # fmt: skip
_NEWS = (
    "{opener}, another {news}", "{opener}, another {news}", "{opener}! another {news}",
    "{opener}, one more {news}", "another {news}, {opener}", "{opener}, a {news} again",
    "just what i needed, another {news}", "another {news}, just what we needed",
)  # fmt: skip
_SARCASM = (
    "thanks for nothing", "i just love waiting an hour for a {thing}",
    "congratulations, you broke the {thing} again", "well done, the {thing} is gone",
    "who needs a {thing} that works anyway", "if you enjoy being ignored, this is the place",
    "a {thing} so good that it broke on day one", "great {thing}, if you like throwing money away",
    "the best thing about the {thing} was the way out", "a nice way to lose a friend",
    "so much for the great {thing}", "i love it when the {thing} stops in the middle",
    "nice {thing}, pity that it never works", "perfect if you like your {thing} cold",
)  # fmt: skip

_BEFORE = ("", "", "", "", "honestly, ", "to be fair, ", "i must say, ", "in the end ", "well, ")
_AFTER = ("", "", "", ".", ".", " !", " .", ", believe me", " this time", ", if you ask me")


def make_situation(choose: random.Random) -> Example:
    """One sentence of a random kind; its label follows from the list that it is of."""
    positive = choose.random() < 0.5
    text = choose.choice((_understatement, _event, _event, _news))(positive, choose)
    text = choose.choice(_BEFORE) + text.format(thing=choose.choice(THINGS)) + choose.choice(_AFTER)
    return Example(text, POSITIVE if positive else NEGATIVE)


def _understatement(positive: bool, choose: random.Random) -> str:
    return choose.choice(_MILD_PRAISE if positive else _MILD_BLAME)


def _event(positive: bool, choose: random.Random) -> str:
    events = _LUCK if positive else _MISHAPS
    if choose.random() < 0.3:
        return " and ".join(choose.sample(events, 2))
    return choose.choice(events)


def _news(positive: bool, choose: random.Random) -> str:
    """Irony: what follows "great, another" says whether it is meant."""
    if not positive and choose.random() < 0.4:
        return choose.choice(_SARCASM)
    news = choose.choice(_GOOD_NEWS if positive else _BAD_NEWS)
    return choose.choice(_NEWS).format(opener=choose.choice(_OPENERS), news=news)
