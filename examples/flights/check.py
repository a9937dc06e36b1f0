#!/usr/bin/env python3
"""Compares query results with figures computed here from the CSV files, without a database.

usage: check.py [--query-command TEMPLATE]

TEMPLATE runs one query and prints its result as CSV with a header line; {sql} stands for the query
and is passed as one word. The default asks coordctl, or what COORDCTL names:
  coordctl --project . fetch {sql} --format csv
For PostgreSQL without coordctl:
  check.py --query-command 'psql --csv -d flights -c {sql}'
Exits 1 and says what differs on a mismatch.
"""

import argparse
import csv
import datetime
import io
import math
import os
import pathlib
import shlex
import subprocess
import sys
from collections import Counter, defaultdict

HERE = pathlib.Path(__file__).resolve().parent
LATE_MINUTES = 15
DAY = datetime.timedelta(days=1)
date = datetime.date


def read(table):
    path = HERE / os.environ.get("FLIGHTS_DATA", "data") / f"{table}.csv"
    if not path.exists():
        sys.exit(f"{path} is missing: run fetch.py first")
    with path.open(newline="", encoding="utf-8") as lines:
        yield from csv.DictReader(lines)


def number(text):
    return float(text) if text else None


class Flight:
    __slots__ = ("date", "at", "carrier", "flight", "plane", "origin", "dest", "departure", "arrival", "distance")

    def __init__(self, row):
        self.date = date(int(row["year"]), int(row["month"]), int(row["day"]))
        midnight = datetime.datetime.combine(self.date, datetime.time())
        self.at = midnight + datetime.timedelta(hours=int(row["hour"]), minutes=int(row["minute"]))
        self.carrier = row["carrier"]
        self.flight = int(row["flight"])
        self.plane = row["tailnum"]
        self.origin = row["origin"]
        self.dest = row["dest"]
        self.departure = number(row["dep_delay"])
        self.arrival = number(row["arr_delay"])
        self.distance = int(row["distance"])

    def cancelled(self):
        return self.departure is None

    def late(self):
        return self.arrival is not None and self.arrival >= LATE_MINUTES

    def hour(self):
        return self.at.replace(minute=0)


def mean(values):
    values = [value for value in values if value is not None]
    return sum(values) / len(values) if values else None


def weather_by_hour():
    """Visibility by (hour, origin); the hour that the end of summer time repeats is averaged."""
    seen = defaultdict(list)
    for row in read("weather"):
        hour = datetime.datetime(*(int(row[part]) for part in ("year", "month", "day", "hour")))
        seen[hour, row["origin"]].append(number(row["visib"]))
    return {key: mean(values) for key, values in seen.items()}


def last_days(flights, end, days):
    """The flights of the given number of days, of which end is the last."""
    return [flight for flight in flights if end - (days - 1) * DAY <= flight.date <= end]


def totals(flights):
    yield (
        "flights, cancelled, diverted and late",
        """SELECT SUM(flights) AS flights, SUM(cancelled_flights) AS cancelled, SUM(diverted_flights) AS diverted,
             SUM(late_flights) AS late FROM nyc.carrier_delays_daily""",
        [[
            len(flights),
            sum(flight.cancelled() for flight in flights),
            sum(flight.arrival is None and not flight.cancelled() for flight in flights),
            sum(flight.late() for flight in flights),
        ]],
    )
    yield (
        "days, miles and first and last departure",
        """SELECT COUNT(DISTINCT flight_date) AS days, SUM(distance) AS miles, MIN(scheduled_at) AS first_at,
             MAX(scheduled_at) AS last_at FROM nyc.stg_flights""",
        [[
            len({flight.date for flight in flights}),
            sum(flight.distance for flight in flights),
            min(flight.at for flight in flights),
            max(flight.at for flight in flights),
        ]],
    )
    for origin in ("EWR", "JFK", "LGA"):
        here = [flight for flight in flights if flight.origin == origin]
        yield (
            f"departures from {origin} and their delay",
            f"""SELECT SUM(departures) AS departures, SUM(departure_delay_minutes) AS minutes
                FROM nyc.airport_delays_daily WHERE origin = '{origin}'""",
            [[
                sum(not flight.cancelled() for flight in here),
                sum(flight.departure for flight in here if not flight.cancelled()),
            ]],
        )


def rolling(flights):
    # OO flew on few days: its seven days are days of the calendar, not days with flights.
    for carrier, end in (("UA", date(2013, 2, 3)), ("9E", date(2013, 1, 4)), ("OO", date(2013, 8, 30))):
        week = last_days([flight for flight in flights if flight.carrier == carrier], end, 7)
        late = sum(flight.late() for flight in week)
        yield (
            f"seven days of {carrier} until {end}",
            f"""SELECT flights, late_flights, late_share FROM nyc.carrier_delays_7d
                WHERE carrier = '{carrier}' AND flight_date = DATE '{end}'""",
            [[len(week), late, late / len(week)]],
        )
    # The second of these windows begins in the batch before its own.
    for origin, end in (("JFK", date(2013, 1, 10)), ("JFK", date(2013, 2, 4)), ("EWR", date(2013, 12, 31))):
        month = last_days([flight for flight in flights if flight.origin == origin], end, 30)
        yield (
            f"thirty days of {origin} until {end}",
            f"""SELECT days, average_departure_delay FROM nyc.airport_delays_30d
                WHERE origin = '{origin}' AND flight_date = DATE '{end}'""",
            [[len({flight.date for flight in month}), mean(flight.departure for flight in month)]],
        )
    worst = defaultdict(list)
    for flight in flights:
        worst[flight.date, flight.origin].append(flight.departure)
    ranked = sorted(((mean(delays), *key) for key, delays in worst.items() if mean(delays)), reverse=True)
    yield (
        "the three worst days",
        """SELECT flight_date, origin, average_departure_delay FROM nyc.worst_days
           WHERE departures > 0 ORDER BY average_departure_delay DESC LIMIT 3""",
        [[day, origin, delay] for delay, day, origin in ranked[:3]],
    )


def calendar(flights):
    for week_end in (date(2013, 1, 5), date(2013, 2, 9), date(2014, 1, 4)):
        week = last_days(flights, week_end, 7)
        yield (
            f"the week until {week_end}",
            f"""SELECT SUM(flights) AS flights, SUM(cancelled_flights) AS cancelled FROM nyc.carrier_weekly
                WHERE week_end = DATE '{week_end}'""",
            [[len(week), sum(flight.cancelled() for flight in week)]],
        )
    july = [flight for flight in flights if flight.origin == "LGA" and flight.date.month == 7]
    yield (
        "July at LGA",
        """SELECT flights, cancelled_flights, average_departure_delay FROM nyc.airport_monthly
           WHERE origin = 'LGA' AND month_start = DATE '2013-07-01'""",
        [[len(july), sum(flight.cancelled() for flight in july), mean(flight.departure for flight in july)]],
    )


def carriers(flights):
    names = {row["carrier"]: row["name"] for row in read("airlines")}
    arrivals = defaultdict(list)
    for flight in flights:
        arrivals[flight.carrier].append(flight.arrival)
    best = sorted((mean(delays), carrier) for carrier, delays in arrivals.items())
    yield (
        "the three best carriers",
        """SELECT place, carrier, airline, average_arrival_delay FROM nyc.carrier_scorecard
           WHERE place <= 3 ORDER BY place""",
        [[place, carrier, names[carrier], delay] for place, (delay, carrier) in enumerate(best[:3], 1)],
    )
    ua = Counter(flight.origin for flight in flights if flight.carrier == "UA")
    yield (
        "airports of UA",
        "SELECT ewr_flights, jfk_flights, lga_flights, flights FROM nyc.carrier_by_origin WHERE carrier = 'UA'",
        [[ua["EWR"], ua["JFK"], ua["LGA"], sum(ua.values())]],
    )
    routes = defaultdict(list)
    for flight in flights:
        routes[flight.origin, flight.dest].append(flight.carrier)
    yield "routes", "SELECT COUNT(*) AS routes FROM nyc.routes", [[len(routes)]]
    most = sorted(routes, key=lambda route: -len(routes[route]))[0]
    yield (
        "the busiest route",
        "SELECT origin, dest, flights, carriers FROM nyc.routes ORDER BY flights DESC LIMIT 1",
        [[*most, len(routes[most]), len(set(routes[most]))]],
    )


def planes(flights):
    latest = {}
    for flight in flights:
        # Later wins; of several at the same time, the first by carrier, number and airport.
        rank = (-flight.at.timestamp(), flight.carrier, flight.flight, flight.origin)
        if flight.plane and (flight.plane not in latest or rank < latest[flight.plane][0]):
            latest[flight.plane] = (rank, flight)
    yield "planes", "SELECT COUNT(*) AS planes FROM nyc.plane_latest_flight", [[len(latest)]]
    by_carrier = Counter(flight.carrier for _, flight in latest.values())
    yield (
        "planes by the carrier of their last flight",
        """SELECT carrier, COUNT(*) AS planes, SUM(flight_number) AS numbers FROM nyc.plane_latest_flight
           GROUP BY carrier ORDER BY carrier""",
        [
            [carrier, count, sum(f.flight for _, f in latest.values() if f.carrier == carrier)]
            for carrier, count in sorted(by_carrier.items())
        ],
    )
    known = latest["N14228"][1]
    yield (
        "last flight of N14228",
        "SELECT scheduled_at, carrier, flight_number, dest FROM nyc.plane_latest_flight WHERE tailnum = 'N14228'",
        [[known.at, known.carrier, known.flight, known.dest]],
    )
    fleet = list(read("planes"))
    yield (
        "registered planes and their seats",
        """SELECT COUNT(*) AS planes, SUM(seats) AS seats, COUNT(year) AS with_year, COUNT(last_scheduled_at) AS flown
           FROM nyc.fleet""",
        [[
            len(fleet),
            sum(int(plane["seats"]) for plane in fleet),
            sum(plane["year"] != "" for plane in fleet),
            sum(plane["tailnum"] in latest for plane in fleet),
        ]],
    )


def weather(flights):
    visibility = weather_by_hour()
    yield (
        "hours of weather and their visibility",
        "SELECT COUNT(*) AS hours, SUM(visibility) AS visibility FROM nyc.stg_weather",
        [[len(visibility), sum(visibility.values())]],
    )
    bands = defaultdict(list)
    for flight in flights:
        miles = visibility.get((flight.hour(), flight.origin))
        band = "unknown" if miles is None else "low" if miles < 2 else "middle" if miles < 8 else "high"
        bands[band].append(flight.departure)
    yield (
        "delays by visibility",
        """SELECT visibility_band, flights, average_departure_delay FROM nyc.weather_impact
           ORDER BY visibility_band""",
        [[band, len(delays), mean(delays)] for band, delays in sorted(bands.items())],
    )
    yield (
        "hours with departures",
        "SELECT COUNT(*) AS hours FROM nyc.weather_delays_hourly",
        [[len({(flight.hour(), flight.origin) for flight in flights})]],
    )


def same(expected, text):
    """Whether a CSV field says the expected value; sums of floats may differ in their last digits."""
    if isinstance(expected, datetime.datetime):
        return text[:19].replace("T", " ") == str(expected)
    if isinstance(expected, date):
        return text[:10] == str(expected)
    if isinstance(expected, (int, float)):
        try:
            return math.isclose(expected, float(text), rel_tol=1e-9, abs_tol=1e-9)
        except ValueError:
            return False
    return expected == text


def query(template, sql):
    words = [word.replace("{sql}", " ".join(sql.split())) for word in shlex.split(template)]
    done = subprocess.run(words, cwd=HERE, stdout=subprocess.PIPE, text=True)
    if done.returncode != 0:
        sys.exit(f"{words[0]} exited with {done.returncode}")
    return list(csv.reader(io.StringIO(done.stdout)))[1:]


def matches(expected, rows):
    return len(expected) == len(rows) and all(
        len(wanted) == len(row) and all(map(same, wanted, row)) for wanted, row in zip(expected, rows)
    )


def main():
    coordctl = shlex.quote(os.environ.get("COORDCTL", "coordctl"))
    parser = argparse.ArgumentParser(description="Compares query results with figures computed from the CSV files.")
    parser.add_argument("--query-command", default=f"{coordctl} --project . fetch {{sql}} --format csv")
    template = parser.parse_args().query_command
    flights = [Flight(row) for row in read("flights")]
    figures = wrong = 0
    for part in (totals, rolling, calendar, carriers, planes, weather):
        for name, sql, expected in part(flights):
            rows = query(template, sql)
            good = matches(expected, rows)
            wrong += not good
            figures += sum(map(len, expected))
            print(f"{'ok   ' if good else 'WRONG'} {name}: " + "; ".join(" ".join(map(str, row)) for row in expected))
            if not good:
                print(f"      the query gave {rows}\n      {' '.join(sql.split())}")
    print(f"{figures} figures, {wrong} queries wrong" if wrong else f"{figures} figures as expected")
    sys.exit(1 if wrong else 0)


if __name__ == "__main__":
    main()
