#!/usr/bin/env python3
"""Compares query results with figures computed here from the events' formula, without a database.

usage: check.py CHECK FILE

FILE is CSV with a header line, or a JSON array of objects ("-" reads standard input). CHECK is
  roi              ads.roi_analysis before the change
  roi-with-value   ads.roi_analysis after the change
  monthly          ads.campaign_trends_monthly
  search           ads.search_daily
Every row of the table must be in FILE, in any order. Exits 1 and says what differs on a mismatch.
"""

import csv
import datetime
import io
import json
import pathlib
import sys
from collections import defaultdict
from decimal import Decimal

FIRST_DAY = datetime.date(2024, 1, 1)
LAST_DAY = datetime.date(2025, 6, 30)
MODULUS = 2147483647
COUNTED = {"impression": "impressions", "click": "clicks", "conversion": "conversions"}


def events():
    """Yields (date, campaign, type, cost in cents, value in cents), as raw_ad_events computes them."""
    for day in range((LAST_DAY - FIRST_DAY).days + 1):
        date = FIRST_DAY + datetime.timedelta(days=day)
        for slot in range(600):
            if slot * 5 >= (380 + day * 37 % 101) * 5 + day:
                break
            h1 = ((day * 1000 + slot) * 48271 + 12345) % MODULUS
            h2 = h1 * (h1 % 65521 + 1) % MODULUS
            campaign = 1 + h2 % 8
            draw = h2 * 69621 % MODULUS % 1000
            if draw < 10 + 4 * campaign:
                yield date, campaign, "conversion", 0, 300 * campaign + h2 % 3000
            elif draw < 110 + 4 * campaign:
                yield date, campaign, "click", 150 + h2 % 450, 0
            else:
                yield date, campaign, "impression", 0, 0


def totals(key_of):
    """Sums the events by key_of(date, campaign); an event whose key is None is left out."""
    groups = defaultdict(lambda: defaultdict(int))
    for date, campaign, kind, cost, value in events():
        key = key_of(date, campaign)
        if key is not None:
            group = groups[key]
            group[COUNTED[kind]] += 1
            group["spend_cents"] += cost
            group["value_cents"] += value
    return groups


def campaigns():
    path = pathlib.Path(__file__).parent / "seeds" / "campaigns.csv"
    with path.open(newline="") as lines:
        return {int(row["campaign_id"]): row for row in csv.DictReader(lines)}


def money(cents):
    return Decimal(cents) / 100


def expected_roi(with_value):
    seed = campaigns()
    expected = {}
    for campaign, total in totals(lambda date, campaign: campaign).items():
        spend = money(total["spend_cents"])
        row = {
            "campaign_name": seed[campaign]["campaign_name"],
            "channel": seed[campaign]["channel"],
            **{name: Decimal(total[name]) for name in COUNTED.values()},
            "spend": spend,
            "cost_per_click": spend / total["clicks"],
            "cost_per_conversion": spend / total["conversions"],
            "assumed_return": total["conversions"] * Decimal(seed[campaign]["assumed_value"]) / spend,
        }
        if with_value:
            row["conversion_value"] = money(total["value_cents"])
            row["measured_return"] = money(total["value_cents"]) / spend
        expected[(str(campaign),)] = row
    return ("campaign_id",), expected


def expected_monthly():
    days = defaultdict(set)

    def key_of(date, campaign):
        key = (date.replace(day=1).isoformat(), str(campaign))
        days[key].add(date)
        return key

    expected = {}
    for key, total in totals(key_of).items():
        expected[key] = {
            **{name: Decimal(total[name]) for name in COUNTED.values()},
            "spend": money(total["spend_cents"]),
            "days_with_events": Decimal(len(days[key])),
        }
    return ("month_start", "campaign_id"), expected


def expected_search():
    search = {number for number, row in campaigns().items() if row["channel"] == "search"}
    groups = totals(lambda date, campaign: date.isoformat() if campaign in search else None)
    expected = {
        (date,): {
            "clicks": Decimal(total["clicks"]),
            "conversions": Decimal(total["conversions"]),
            "spend": money(total["spend_cents"]),
        }
        for date, total in groups.items()
    }
    return ("event_date",), expected


CHECKS = {
    "roi": lambda: expected_roi(with_value=False),
    "roi-with-value": lambda: expected_roi(with_value=True),
    "monthly": expected_monthly,
    "search": expected_search,
}


def read_rows(path):
    text = sys.stdin.read() if path == "-" else pathlib.Path(path).read_text()
    if text.lstrip().startswith("["):
        return json.loads(text, parse_float=Decimal)
    return list(csv.DictReader(io.StringIO(text)))


def key_text(value):
    """A key's text; a date that came as a timestamp at midnight is that date."""
    text = str(value)
    return text[:10] if len(text) > 10 and text[10:].strip("T 0:.Z+") == "" else text


def same(expected, actual):
    """Texts must be equal; ratios are rounded to four places by the warehouse, so numbers may differ by that."""
    if isinstance(expected, Decimal):
        return abs(expected - Decimal(str(actual))) <= Decimal("0.0001")
    return expected == actual


def differences(key_columns, expected, rows):
    found = {}
    for row in rows:
        key = tuple(key_text(row[column]) for column in key_columns)
        if key in found:
            yield f"{key}: more than one row"
        found[key] = row
    for key in sorted(found.keys() - expected.keys()):
        yield f"{key}: not expected"
    for key, columns in sorted(expected.items()):
        if key not in found:
            yield f"{key}: missing"
            continue
        for column, value in columns.items():
            if column not in found[key]:
                yield f"{key}: no column {column}"
            elif not same(value, found[key][column]):
                yield f"{key}: {column} is {found[key][column]}, expected {value}"


def main():
    if len(sys.argv) != 3 or sys.argv[1] not in CHECKS:
        sys.exit(__doc__)
    key_columns, expected = CHECKS[sys.argv[1]]()
    wrong = list(differences(key_columns, expected, read_rows(sys.argv[2])))
    for line in wrong[:20]:
        print(f"check {sys.argv[1]}: {line}", file=sys.stderr)
    if wrong:
        sys.exit(1)
    figures = sum(len(columns) for columns in expected.values())
    print(f"check {sys.argv[1]}: {len(expected)} rows, {figures} figures as expected")


if __name__ == "__main__":
    main()
