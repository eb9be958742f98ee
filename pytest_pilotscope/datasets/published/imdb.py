"""IMDB as of May 2013, the data of the Join Order Benchmark: Leis et al., PVLDB 9(3), 2015."""

from __future__ import annotations

from .source import Source


def _columns(text: str) -> dict[str, str]:
    """Read `name:type` separated by blanks; i is integer, t is text, tN a text of at most N characters, and ! forbids NULL."""
    columns = {}
    for word in text.split():
        name, kind = word.split(":")
        bare = kind.rstrip("!")
        written = "integer" if bare == "i" else f"character varying({bare[1:]})" if bare[1:] else "text"
        columns[name] = written + (" NOT NULL" if kind.endswith("!") else "")
    return columns


_TITLE = "title:t! imdb_index:t12 kind_id:i! production_year:i"
_EPISODE = "phonetic_code:t5 episode_of_id:i season_nr:i episode_nr:i"
_KEYED = "movie_id:i! info_type_id:i! info:t! note:t"

SOURCE = Source(
    name="imdb",
    url="https://github.com/weiwch/ai4db_datasets/releases/download/imdb/postgres_imdb.tar.gz",
    sha256="03ff2e51e479fddae0fd4a0a40a51fad78536bde5bba3bdc9f49563be96f9b12",
    tables={
        table: _columns(f"id:i! {columns}")
        for table, columns in {
            "aka_name": "person_id:i! name:t! imdb_index:t12 name_pcode_cf:t5 name_pcode_nf:t5 surname_pcode:t5 md5sum:t32",
            "aka_title": f"movie_id:i! {_TITLE} {_EPISODE} note:t md5sum:t32",
            "cast_info": "person_id:i! movie_id:i! person_role_id:i note:t nr_order:i role_id:i!",
            "char_name": "name:t! imdb_index:t12 imdb_id:i name_pcode_nf:t5 surname_pcode:t5 md5sum:t32",
            "comp_cast_type": "kind:t32!",
            "company_name": "name:t! country_code:t255 imdb_id:i name_pcode_nf:t5 name_pcode_sf:t5 md5sum:t32",
            "company_type": "kind:t32!",
            "complete_cast": "movie_id:i subject_id:i! status_id:i!",
            "info_type": "info:t32!",
            "keyword": "keyword:t! phonetic_code:t5",
            "kind_type": "kind:t15!",
            "link_type": "link:t32!",
            "movie_companies": "movie_id:i! company_id:i! company_type_id:i! note:t",
            "movie_info": _KEYED,
            "movie_info_idx": _KEYED,
            "movie_keyword": "movie_id:i! keyword_id:i!",
            "movie_link": "movie_id:i! linked_movie_id:i! link_type_id:i!",
            "name": "name:t! imdb_index:t12 imdb_id:i gender:t1 name_pcode_cf:t5 name_pcode_nf:t5 surname_pcode:t5 md5sum:t32",
            "person_info": "person_id:i! info_type_id:i! info:t! note:t",
            "role_type": "role:t32!",
            "title": f"{_TITLE} imdb_id:i {_EPISODE} series_years:t49 md5sum:t32",
        }.items()
    },
    references={
        **{
            (table, "movie_id"): "title"
            for table in [
                "aka_title",
                "cast_info",
                "complete_cast",
                "movie_companies",
                "movie_info",
                "movie_info_idx",
                "movie_keyword",
                "movie_link",
            ]
        },
        **{(table, "person_id"): "name" for table in ("aka_name", "cast_info", "person_info")},
        **{(table, "info_type_id"): "info_type" for table in ("movie_info", "movie_info_idx", "person_info")},
        **{(table, "kind_id"): "kind_type" for table in ("aka_title", "title")},
        **{("complete_cast", column): "comp_cast_type" for column in ("subject_id", "status_id")},
        ("cast_info", "person_role_id"): "char_name",
        ("cast_info", "role_id"): "role_type",
        ("movie_companies", "company_id"): "company_name",
        ("movie_companies", "company_type_id"): "company_type",
        ("movie_keyword", "keyword_id"): "keyword",
        ("movie_link", "linked_movie_id"): "title",
        ("movie_link", "link_type_id"): "link_type",
    },
    csv="FORMAT csv, ESCAPE '\\'",
    header=False,
    limit_bytes=32 << 30,
    queries="JOB's 113 queries are the files 1a.sql to 33c.sql of https://github.com/gregrahn/join-order-benchmark",
)
