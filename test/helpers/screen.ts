/** What stands on a terminal after a program has written to it: line feeds, carriage returns, cursor up, erase below. */
export function screenOf(output: string): string[] {
  const lines: string[] = ['']
  let row = 0
  let column = 0
  for (const [token] of output.matchAll(/\u001b\[[0-9;?]*[A-Za-z]|[^]/gu)) {
    const [, count = '', final = ''] = /^\u001b\[([0-9;?]*)([A-Za-z])$/u.exec(token) ?? []
    if (final === 'A') row = Math.max(0, row - Number(count || '1'))
    else if (final === 'J') {
      lines.length = row + 1
      lines[row] = (lines[row] ?? '').slice(0, column)
    } else if (final !== '') continue // colours, the cursor's visibility
    else if (token === '\r') column = 0
    else if (token === '\n') {
      row++ // the terminal's driver puts a carriage return before it
      lines[row] ??= ''
    } else {
      const line = lines[row] ?? ''
      lines[row] = line.slice(0, column).padEnd(column) + token + line.slice(column + 1)
      column++
    }
  }
  return lines.filter(line => line !== '')
}
