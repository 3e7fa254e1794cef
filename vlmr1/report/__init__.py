"""The report: facts from what the stages wrote, pictures of them, and one page that opens offline.

`facts` and `figures` make tracked, repeatable outputs; `page` joins them with what differs by nature (commit, machine,
times) into reports/report.html and reports/report.md, which are not tracked.
"""
